"""A writer of test_packages.py: worker.py DATABASE NAME

Reports on standard output when it holds the write lock, and commits when it gets a line.
With PLAIN in its environment it does not load the extension.
"""

import os
import sqlite3
import sys

import sqlite_walqueue

database, name = sys.argv[1:]
if "PLAIN" not in os.environ:
    sqlite_walqueue.load()
connection = sqlite3.connect(database, timeout=60, isolation_level=None)
connection.execute("SELECT count(*) FROM writers").fetchone()
print("begins", flush=True)
connection.execute("BEGIN IMMEDIATE")
print("holds", flush=True)
sys.stdin.readline()
connection.execute("INSERT INTO writers(name) VALUES (?)", (name,))
connection.execute("COMMIT")
connection.close()
