// Runs in the audio thread: collects the microphone's samples into blocks of about 40 ms and hands them to the page.

const BLOCK_S = 0.04;
const QUANTUM = 128; // samples a call: a block of whole calls is handed over when its last sample is there, not later

class Blocks extends AudioWorkletProcessor {
  #size = Math.round((BLOCK_S * sampleRate) / QUANTUM) * QUANTUM;
  #block = new Int16Array(this.#size);
  #filled = 0;

  process([[samples]]) {
    // Without a channel the source gives nothing at all; with `samples` undefined time still passes, so it is silence.
    for (let i = 0; i < (samples?.length ?? QUANTUM); i++) {
      this.#block[this.#filled++] = 32767 * Math.max(-1, Math.min(1, samples?.[i] ?? 0));
      if (this.#filled === this.#size) {
        this.port.postMessage(this.#block, [this.#block.buffer]); // moved, not copied
        this.#block = new Int16Array(this.#size);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("blocks", Blocks);
