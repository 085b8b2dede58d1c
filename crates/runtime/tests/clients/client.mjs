// Posts a body several times with one agent, and prints each status.
import http from "node:http";
import https from "node:https";

const [url, size, count] = process.argv.slice(2);
const body = Buffer.alloc(Number(size), "x");
const { request, Agent } = url.startsWith("https") ? https : http;
const agent = new Agent({ keepAlive: true, rejectUnauthorized: false });

const post = () =>
  new Promise((done) => {
    const failed = (error) => done(`error: ${error}`);
    const sent = request(url, { method: "POST", agent, timeout: 60000 }, (answer) => {
      answer.on("error", failed);
      answer.on("end", () => done(answer.statusCode));
      answer.resume();
    });
    sent.on("error", failed);
    sent.end(body);
  });

for (let i = 0; i < Number(count); i++) {
  console.log(await post());
}
agent.destroy();
