// A consumer as one writes it by hand: amqplib, and undici where each message is posted. Says how long it took, and the
// processor time, once so many messages are acknowledged.
import amqp from "amqplib";
import { Pool } from "undici";

const [url, queue, count, prefetch, target] = process.argv.slice(2);
const [total, at_once] = [Number(count), Number(prefetch)];
const pool = target ? new Pool(new URL(target).origin, { connections: at_once }) : null;
const connection = await amqp.connect(url);
const channel = await connection.createChannel();
await channel.prefetch(at_once);
let done = 0;
let began = 0n;
let cpu;
await channel.consume(queue, async (message) => {
  if (began === 0n) {
    began = process.hrtime.bigint();
    cpu = process.cpuUsage();
  }
  if (pool) {
    const answer = await pool.request({ path: "/", method: "POST", body: message.content });
    await answer.body.dump();
    if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
  }
  channel.ack(message);
  done += 1;
  if (done === total) {
    const took = Number(process.hrtime.bigint() - began) / 1e9;
    const { user, system } = process.cpuUsage(cpu);
    await channel.close();
    await connection.close();
    console.log(JSON.stringify({ seconds: took, cpu: (user + system) / 1e6 }));
    process.exit(0);
  }
});
