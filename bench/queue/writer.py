"""A writer of `make bench-queue` and of the tests of `wal-queue`: Python's own SQLite.

The only argument is an order in JSON (bench/src/queue/order.rs). The process prints `ready`,
waits for a line, commits until the time of the order is over, and prints what it reached.
"""

import json
import os
import sqlite3
import sys
import time
import urllib.parse

order = json.loads(sys.argv[1])
if order["library"]:
    # What the library registers stays with the process.
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(order["library"])
uri = "file:" + urllib.parse.quote(order["database"])
if order["group_commit"]:
    uri += "?walqueue_group=1"
connection = sqlite3.connect(
    uri, uri=True, timeout=order["busy_timeout_ms"] / 1000, isolation_level=None
)
connection.execute("PRAGMA synchronous=" + order["synchronous"])
acknowledged = None
if order.get("acknowledged"):
    acknowledged = os.open(order["acknowledged"], os.O_RDWR | os.O_CREAT)
update = "UPDATE t SET n = n + 1, x = randomblob(100) WHERE id = ?"
row = (order["row"],)
pause = order["pause_ms"] / 1000
commits = locked = 0
waits = []

print("ready", flush=True)
sys.stdin.readline()
started = time.monotonic()
while time.monotonic() - started < order["seconds"]:
    asked = time.monotonic()
    try:
        connection.execute("BEGIN IMMEDIATE")
        waits.append(int((time.monotonic() - asked) * 1e6))
        connection.execute(update, row)
        if pause:
            time.sleep(pause)
        connection.execute("COMMIT")
        commits += 1
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        locked += 1
        waits.append(int((time.monotonic() - asked) * 1e6))
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        continue
    if acknowledged is not None:
        (count,) = connection.execute("SELECT n FROM t WHERE id = ?", row).fetchone()
        os.pwrite(acknowledged, count.to_bytes(8, "little"), 0)
seconds = time.monotonic() - started
outcome = {"commits": commits, "locked": locked, "seconds": seconds, "waits_us": waits}
print(json.dumps(outcome), flush=True)
