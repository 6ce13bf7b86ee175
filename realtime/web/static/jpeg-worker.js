// Runs beside the page: makes a JPEG of a frame. On the page's own thread the encoder waits until nothing is drawn.

const QUALITY = 0.75;

const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true }); // kept where the encoder reads it

onmessage = async ({ data: { frame, width, height } }) => {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  context.drawImage(frame, 0, 0, width, height);
  frame.close();
  const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  const bytes = new Uint8Array(await jpeg.arrayBuffer());
  postMessage(bytes, [bytes.buffer]);
};
