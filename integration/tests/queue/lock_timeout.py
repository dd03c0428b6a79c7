"""A SQLite that waits in its lock calls: lock_timeout.py LIBRARY DIRECTORY SQLITE.

SQLITE is a library built with SQLITE_ENABLE_SETLK_TIMEOUT, which asks for WRITE before it takes
its snapshot, and has the VFS wait. Processes with it share the lock in the queue, and their
timeouts are as long as they are set.
"""

import ctypes
import os
import subprocess
import sys
import time

WRITERS = 6
SECONDS = 2.0
BUSY = 5
library, directory, path = sys.argv[1:4]
database = os.path.join(directory, "app.db").encode()
sqlite = ctypes.CDLL(path, os.RTLD_LOCAL | os.RTLD_NOW)
sqlite.sqlite3_errmsg.restype = ctypes.c_char_p


def open_database(name, timeout_ms):
    db = ctypes.c_void_p()
    assert sqlite.sqlite3_open(name, ctypes.byref(db)) == 0
    # Of the lock calls too, in such a build.
    assert sqlite.sqlite3_busy_timeout(db, timeout_ms) == 0
    return db


def code_of(db, sql):
    return sqlite.sqlite3_exec(db, sql.encode(), None, None, None) & 0xFF


def execute(db, sql):
    code = code_of(db, sql)
    assert code == 0, f"{sql}: code {code}: {sqlite.sqlite3_errmsg(db)}"


assert sqlite.sqlite3_compileoption_used(b"ENABLE_SETLK_TIMEOUT")
loader = open_database(b":memory:", 0)
assert sqlite.sqlite3_enable_load_extension(loader, 1) == 0
assert sqlite.sqlite3_load_extension(loader, library.encode(), None, None) == 0

if sys.argv[4:] == ["write"]:
    db = open_database(database, 20000)
    execute(db, "SELECT * FROM t")
    print("ready", flush=True)
    sys.stdin.readline()
    commits = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        execute(db, "BEGIN IMMEDIATE; UPDATE t SET n = n + 1")
        time.sleep(0.002)
        execute(db, "COMMIT")
        commits += 1
    print(commits)
    sys.exit()

if sys.argv[4:] == ["hold"]:
    db = open_database(database, 0)
    execute(db, "BEGIN IMMEDIATE")
    print("ready", flush=True)
    sys.stdin.readline()
    execute(db, "COMMIT")
    sys.exit()

first = open_database(database, 0)
execute(first, "PRAGMA journal_mode=WAL; CREATE TABLE t(n); INSERT INTO t VALUES(0)")
assert os.path.exists(database + b"-coord")
command = [sys.executable, *sys.argv, "write"]
writers = [
    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(WRITERS)
]
for writer in writers:
    assert writer.stdout.readline() == "ready\n"
for writer in writers:
    writer.stdin.write("\n")
    writer.stdin.flush()
commits = [int(writer.stdout.readline()) for writer in writers]
assert all(writer.wait(60) == 0 for writer in writers), "a writer failed"
assert min(commits) * 2 > max(commits), commits
execute(first, f"CREATE TABLE c(n CHECK(n = {sum(commits)})); INSERT INTO c SELECT n FROM t")

# The holder is a process, since a lock call does not wait for a connection of its own.
holder = subprocess.Popen([*command[:-1], "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
assert holder.stdout.readline() == b"ready\n"
for timeout_ms in [100, 1000]:
    db = open_database(database, timeout_ms)
    waits = []
    for _ in range(5):
        asked = time.monotonic()
        assert code_of(db, "BEGIN IMMEDIATE") == BUSY
        waits.append((time.monotonic() - asked) * 1000)
        assert waits[-1] >= 0.95 * timeout_ms, waits
        if waits[-1] <= 1.05 * timeout_ms:
            break
    # A wait may be longer than it should, because the machine is busy.
    assert min(waits) <= 1.05 * timeout_ms, waits
holder.communicate(b"\n")
assert holder.returncode == 0
execute(db, "BEGIN IMMEDIATE; COMMIT")
print("done")
