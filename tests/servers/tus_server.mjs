// The reference tus server over TLS, behind a bearer token. Settings come from the environment.
import fs from "node:fs";
import https from "node:https";
import { FileStore } from "@tus/file-store";
import { Server } from "@tus/server";

const { PORT, FILES, CERTIFICATE, KEY, TOKEN, EXPIRE_MS, MAX_SIZE } = process.env;
const server = new Server({
  path: "/files",
  datastore: new FileStore({ directory: FILES, expirationPeriodInMilliseconds: Number(EXPIRE_MS) }),
  maxSize: Number(MAX_SIZE),
  relativeLocation: true,
});
// Node 20's web streams sometimes throw this behind a GET that was answered whole, which would end the server.
process.on("uncaughtException", (error) => {
  console.error(error);
  if (error.code !== "ERR_INVALID_STATE") process.exit(1);
});
https
  .createServer({ cert: fs.readFileSync(CERTIFICATE), key: fs.readFileSync(KEY) }, (request, response) => {
    if (TOKEN && request.headers.authorization !== `Bearer ${TOKEN}`) {
      response.writeHead(401, { "Content-Type": "text/plain", "Content-Length": "0", Connection: "close" });
      response.end();
      return;
    }
    server.handle(request, response);
  })
  .listen({ host: "127.0.0.1", port: Number(PORT) });
