"""Tests of the packages as a user installs them: test_packages.py PYTHON... [--node FOLDER]

Each PYTHON has the wheel installed. FOLDER/node_modules has the npm package, and
NODE_PATH has better-sqlite3. The writers are processes of all of them and of the
sqlite3 shell.
"""

import argparse
import contextlib
import pathlib
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = pathlib.Path(__file__).resolve().parent
# A hang ends here. A test that passes never waits for so long.
PATIENCE = 60
PYTHONS: "list[str]" = []
NODE_FOLDER = None


def python_worker(python):
    return lambda database, name: ([python, HERE / "worker.py", database, name], None)


def node_worker(database, name):
    # `require` looks for packages beside the script.
    script = pathlib.Path(NODE_FOLDER, "worker.js")
    shutil.copy(HERE / "worker.js", script)
    return ["node", script, database, name], None


def shell_worker(database, name):
    """The shell reads its commands from standard input: those up to the lock come first."""
    library = path_of_library(PYTHONS[0])
    before = f""".load {library}
.open {database}
.timeout {PATIENCE * 1000}
SELECT count(*) FROM writers;
.system echo begins
BEGIN IMMEDIATE;
.system echo holds
INSERT INTO writers(name) VALUES ('{name}');
"""
    return ["sqlite3", ":memory:"], before


def path_of_library(python):
    command = [python, "-c", "import sqlite_walqueue; print(sqlite_walqueue.path())"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()


class Writer:
    """A process that waits for the write lock and holds it until it is released."""

    def __init__(self, worker, database, name, environment=None):
        command, self.before = worker(str(database), name)
        self.name = name
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
        )
        # A worker that hangs ends, and with it the test that reads from it.
        self.timer = threading.Timer(PATIENCE, self.process.kill)
        self.timer.start()
        if self.before is not None:
            self.process.stdin.write(self.before)
            self.process.stdin.flush()
        self.expect("begins")

    def expect(self, line):
        while True:
            read = self.process.stdout.readline()
            if read.strip() == line:
                return
            if read == "":
                raise AssertionError(f"{self.name} ended before it printed {line!r}")

    def commit(self):
        self.process.stdin.write("COMMIT;\n")
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        if code != 0:
            raise AssertionError(f"{self.name} ended with {code}")

    def end(self):
        self.timer.cancel()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


class Queue(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.database = pathlib.Path(folder.name, "app.db")
        # Stock SQLite, which is no writer of the queue.
        self.stock = sqlite3.connect(str(self.database), isolation_level=None)
        self.addCleanup(self.stock.close)
        self.stock.execute("PRAGMA journal_mode=WAL").fetchall()
        self.stock.execute("CREATE TABLE writers(turn INTEGER PRIMARY KEY, name TEXT)")

    def start(self, worker, name, environment=None):
        writer = Writer(worker, self.database, name, environment)
        self.addCleanup(writer.end)
        return writer

    def seen_in_queue(self, writers):
        """The processes that wait in the queue, once all `writers` are among them."""
        pids = [str(writer.process.pid) for writer in writers]
        command = [PYTHONS[0], HERE / "observer.py", self.database, *pids]
        options = {"timeout": PATIENCE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
        return set(subprocess.run(command, check=True, **options).stdout.split())

    def commit_in_turn(self, holder, waiting):
        """Each writer that gets the lock commits and releases it."""
        holder.commit()
        while waiting:
            outputs = [writer.process.stdout for writer in waiting]
            ready, _, _ = select.select(outputs, [], [], PATIENCE)
            self.assertTrue(ready, "no writer got the lock")
            holder = waiting.pop(outputs.index(ready[0]))
            holder.expect("holds")
            holder.commit()

    def committed(self):
        return {name for (name,) in self.stock.execute("SELECT name FROM writers")}

    def test_writers_of_all_languages_wait_in_one_queue(self):
        workers = [(python, python_worker(python)) for python in PYTHONS]
        workers.append(("the sqlite3 shell", shell_worker))
        if NODE_FOLDER is not None:
            workers.append(("better-sqlite3", node_worker))
        (name, worker), *others = workers * 2
        holder = self.start(worker, "0 " + name)
        holder.expect("holds")
        waiting = [
            self.start(worker, f"{number} {name}")
            for number, (name, worker) in enumerate(others, start=1)
        ]
        self.seen_in_queue(waiting)
        names = {writer.name for writer in [holder, *waiting]}
        self.commit_in_turn(holder, waiting)
        self.assertEqual(self.committed(), names)

    def test_writer_without_the_extension_polls_beside_the_queue(self):
        worker = python_worker(PYTHONS[0])
        holder = self.start(worker, "holder")
        holder.expect("holds")
        plain = self.start(worker, "plain", environment={"PLAIN": "1"})
        queued = self.start(worker, "queued")
        self.assertEqual(self.seen_in_queue([queued]), {str(queued.process.pid)})
        self.commit_in_turn(holder, [plain, queued])
        self.assertEqual(self.committed(), {"holder", "plain", "queued"})


class Wheel(unittest.TestCase):
    def run_in_each(self, program):
        for python in PYTHONS:
            with self.subTest(python=python):
                command = [python, "-c", "import sqlite_walqueue as queue\n" + program]
                subprocess.run(command, check=True, timeout=PATIENCE)

    def test_second_load_does_nothing(self):
        self.run_in_each(
            """
assert not queue.is_loaded()
assert queue.load() is None
assert queue.is_loaded()
assert queue.load() is None
assert queue.is_loaded()
"""
        )

    def test_load_without_enable_load_extension_uses_ctypes(self):
        self.run_in_each(
            """
queue._load_by_ctypes()
assert queue.is_loaded()
"""
        )

    def test_refused_library_is_named_with_its_remedy(self):
        self.run_in_each(
            """
import sqlite3
queue._LIBRARY = "absent.so"
for load in [queue.load, queue._load_by_ctypes]:
    try:
        load()
    except queue.LoadError as error:
        text = str(error)
    assert text.startswith(queue.path() + ": SQLite did not load it: "), text
    assert "cannot open shared object file" in text, text
    assert text.endswith("; install the wheel that was built for this machine's processor and C library"), text
assert not queue.is_loaded()
sqlite3.connect(":memory:").execute("SELECT 1")
"""
        )

    def test_sqlite_without_loading_is_named_with_its_remedy(self):
        self.run_in_each(
            """
queue._FUNCTIONS_TO_LOAD += ("sqlite3_absent",)
try:
    queue._load_by_ctypes()
except queue.LoadError as error:
    text = str(error)
assert "exports no function that loads extensions; use a Python" in text, text
"""
        )

    def test_old_sqlite_is_named_with_its_remedy(self):
        self.run_in_each(
            """
queue._OLDEST_SQLITE = (4, 0, 0)
try:
    queue.load()
except queue.LoadError as error:
    text = str(error)
import sqlite3
assert "this Python has SQLite " + sqlite3.sqlite_version + "; use" in text, text
"""
        )


class Npm(unittest.TestCase):
    def setUp(self):
        if NODE_FOLDER is None:
            self.skipTest("no folder with the npm package was given")

    def run_node(self, program):
        command = ["node", "-e", "const queue = require('sqlite-walqueue');\n" + program]
        subprocess.run(command, cwd=NODE_FOLDER, check=True, timeout=PATIENCE)

    def test_load_takes_the_class_or_a_connection(self):
        self.run_node(
            """
const Database = require('better-sqlite3');
queue.load(Database);
queue.load(Database);
queue.load(new Database(':memory:'));
"""
        )

    def test_node_sqlite_is_in_the_queue(self):
        self.run_node(
            """
let sqlite;
try { sqlite = require('node:sqlite'); } catch { console.error('not checked: node:sqlite: this Node has none'); process.exit(); }
const assert = require('node:assert');
const { existsSync, mkdtempSync, rmSync } = require('node:fs');
const folder = mkdtempSync(require('node:path').join(require('node:os').tmpdir(), 'walqueue-'));
try {
  queue.load(sqlite.DatabaseSync);
  const connection = new sqlite.DatabaseSync(folder + '/app.db');
  connection.exec('PRAGMA journal_mode = WAL; CREATE TABLE t(a)');
  assert(existsSync(folder + '/app.db-coord'));
  connection.close();
  assert.throws(() => queue.load(new sqlite.DatabaseSync(':memory:')), /; pass the driver's class/);
} finally {
  rmSync(folder, { recursive: true });
}
"""
        )

    def test_driver_without_extensions_is_refused(self):
        self.run_node(
            """
const assert = require('node:assert');
for (const driver of [undefined, null, {}, class {}, 'better-sqlite3'])
  assert.throws(() => queue.load(driver), { name: 'TypeError', message: /; pass require/ });
"""
        )

    def test_refused_library_is_named_with_its_remedy(self):
        self.run_node(
            """
const assert = require('node:assert');
const driver = { loadExtension() { throw new Error('not authorized'); } };
const named = (error) => error.message.startsWith(queue.path() + ': SQLite did not load it: not authorized; pass');
assert.throws(() => queue.load(driver), named);
"""
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--node", metavar="FOLDER")
    arguments = parser.parse_args()
    PYTHONS = arguments.pythons
    NODE_FOLDER = arguments.node
    unittest.main(argv=sys.argv[:1])
