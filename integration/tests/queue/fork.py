"""A process with the extension forks: fork.py LIBRARY DIRECTORY.

The children open connections of their own, as SQLite demands, while the parent uses the
connection that it has. Some children only exit.
"""

import os
import sqlite3
import sys

COMMITS = 200
CHILDREN = 3
library, directory = sys.argv[1:3]
path = os.path.join(directory, "app.db")


def connect():
    return sqlite3.connect(path, timeout=20, isolation_level=None)


def write(connection):
    for _ in range(COMMITS):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE t SET n = n + 1")
        connection.execute("COMMIT")


loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(library)
connection = connect()
connection.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t(n); INSERT INTO t VALUES(0)")
write(connection)
children = []
for number in range(2 * CHILDREN):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if number % 2 == 0:
                write(connect())
            code = 0
        finally:
            # The parent's connection is not the child's to close.
            os._exit(code)
    children.append(child)
write(connection)
for child in children:
    _, status = os.waitpid(child, 0)
    assert status == 0, f"a child ended with status {status}"
(count,) = connection.execute("SELECT n FROM t").fetchone()
assert count == (2 + CHILDREN) * COMMITS, count
(verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
assert verdict == "ok", verdict
print("done")
