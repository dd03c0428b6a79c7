"""Two copies of SQLite in one process share the extension: two_copies.py LIBRARY DIRECTORY.

The copy of Python's module and a copy of its file that `ctypes` loads each have a database, for
which they compete with a process of the shell's kind: a child that this script starts with `write`.
"""

import ctypes
import os
import re
import shutil
import sqlite3
import subprocess
import sys

COMMITS = 200
library, directory = sys.argv[1:3]


def module_connection(name):
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(library)
    return sqlite3.connect(os.path.join(directory, name), timeout=20, isolation_level=None)


def write(execute):
    for _ in range(COMMITS):
        execute("BEGIN IMMEDIATE; UPDATE t SET n = n + 1; COMMIT")


if sys.argv[3:]:
    write(module_connection(sys.argv[4]).executescript)
    sys.exit()

names = ["one.db", "two.db"]
for name in names:
    setup = sqlite3.connect(os.path.join(directory, name))
    setup.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t(n); INSERT INTO t VALUES(0)")
    setup.close()

first = module_connection(names[0])
first.execute("SELECT * FROM t").fetchall()

with open("/proc/self/maps") as maps:
    original = re.search(r"/\S*libsqlite3\.so\S*", maps.read()).group()
second_file = shutil.copy(original, os.path.join(directory, "second-sqlite.so"))
sqlite = ctypes.CDLL(second_file, os.RTLD_LOCAL | os.RTLD_NOW | getattr(os, "RTLD_DEEPBIND", 0))


def check(code, db=None):
    if code:
        sqlite.sqlite3_errmsg.restype = ctypes.c_char_p
        raise SystemExit(f"code {code}: {sqlite.sqlite3_errmsg(db) if db else b''}")


def open_second(name):
    db = ctypes.c_void_p()
    check(sqlite.sqlite3_open(name.encode(), ctypes.byref(db)))
    check(sqlite.sqlite3_busy_timeout(db, 20000), db)
    return db


loader = open_second(":memory:")
check(sqlite.sqlite3_enable_load_extension(loader, 1), loader)
check(sqlite.sqlite3_load_extension(loader, library.encode(), None, None), loader)
second = open_second(os.path.join(directory, names[1]))


def execute_second(sql):
    check(sqlite.sqlite3_exec(second, sql.encode(), None, None, None), second)


execute_second("SELECT * FROM t")
for name in names:
    assert os.path.exists(os.path.join(directory, name + "-coord")), name
script = [sys.executable, __file__, library, directory, "write"]
for name, execute in zip(names, [first.executescript, execute_second]):
    rival = subprocess.Popen(script + [name])
    write(execute)
    assert rival.wait(60) == 0, "the rival failed"
    check_connection = sqlite3.connect(os.path.join(directory, name))
    (count,) = check_connection.execute("SELECT n FROM t").fetchone()
    assert count == 2 * COMMITS, f"{name}: {count}"
print("done")
