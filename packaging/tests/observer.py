"""Looks at the queue for test_packages.py: observer.py DATABASE PID...

Prints the processes that it has seen wait, once each PID is among them. A waiter leaves its
slot between two sleeps of SQLite, so a single query does not return all.
"""

import sqlite3
import sys
import time

import sqlite_walqueue

sqlite_walqueue.load()
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM writers").fetchone()
awaited = {int(pid) for pid in sys.argv[2:]}
seen = set()
while not awaited <= seen:
    seen |= {pid for (pid,) in connection.execute("SELECT pid FROM wal_queue WHERE state = 'waits'")}
    time.sleep(0.001)
print(*seen)
