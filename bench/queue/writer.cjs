// A writer of `make bench-queue` and of the tests of `wal-queue`: better-sqlite3 in Node.
//
// The only argument is an order in JSON (bench/src/queue/order.rs). The process prints `ready`,
// waits for a line, commits until the time of the order is over, and prints what it reached.
// The driver comes from NODE_PATH.

const fs = require("node:fs");
const Database = require("better-sqlite3");

const order = JSON.parse(process.argv[2]);
if (order.library) {
  // What the library registers stays with the process.
  new Database(":memory:").loadExtension(order.library);
}
// The driver opens paths only, so group commit comes from the environment.
const connection = new Database(order.database, { timeout: order.busy_timeout_ms });
connection.pragma("synchronous=" + order.synchronous);
const begin = connection.prepare("BEGIN IMMEDIATE");
const update = connection.prepare("UPDATE t SET n = n + 1, x = randomblob(100) WHERE id = ?");
const commit = connection.prepare("COMMIT");
const rollback = connection.prepare("ROLLBACK");
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const waits = [];
let commits = 0;
let locked = 0;

fs.writeSync(1, "ready\n");
fs.readSync(0, Buffer.alloc(16));
const started = performance.now();
while (performance.now() - started < order.seconds * 1000) {
  const asked = performance.now();
  try {
    begin.run();
    waits.push(Math.floor((performance.now() - asked) * 1000));
    update.run(order.row);
    if (order.pause_ms) Atomics.wait(sleeper, 0, 0, order.pause_ms);
    commit.run();
    commits += 1;
  } catch (error) {
    if (!String(error.code).startsWith("SQLITE_BUSY")) throw error;
    locked += 1;
    waits.push(Math.floor((performance.now() - asked) * 1000));
    if (connection.inTransaction) rollback.run();
  }
}
const seconds = (performance.now() - started) / 1000;
const outcome = { commits, locked, seconds, waits_us: waits };
// A pipe may take a long line in parts.
let left = Buffer.from(JSON.stringify(outcome) + "\n");
while (left.length > 0) left = left.subarray(fs.writeSync(1, left));
