// Print the emotion shown whenever it changes; works in browsers too.
//
// npm install mqtt
// node subscribe.mjs ws://localhost:9001 hall
import mqtt from "mqtt";

const [broker, stream] = process.argv.slice(2);
const client = mqtt.connect(broker); // comes back by itself when the broker does
let told;

client.on("connect", () => client.subscribe(`dhmd/${stream}/emotion`));
client.on("message", (topic, payload) => {
  const { top, emotions } = JSON.parse(payload.toString());
  if (top === told) return;
  told = top;
  console.log(top ? `${top} (${Math.round(100 * emotions[top])}% sure)` : "nobody");
});
client.on("error", (error) => console.error(error.message));
