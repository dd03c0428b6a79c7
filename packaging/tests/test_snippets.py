"""Runs the code in docs/stock-sqlite.md: test_snippets.py PYTHON [--node FOLDER]

Each language that this machine has. What is left out is listed as in the Rust tests
(integration/src/needs.rs). The arguments are those of test_packages.py.
"""

import argparse
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATIENCE = 300
PYTHON = ""
NODE_FOLDER = None
LIBRARY = ROOT / "target" / "extension" / "libwalqueue.so"

# What is run behind the lines of the document: a commit, and a look for the side file.
PYTHON_END = """
db.execute("INSERT INTO t VALUES (1)")
db.commit()
import os
assert os.path.exists("app.db-coord")
"""
NODE_END = """
db.exec('INSERT INTO t VALUES (1)');
require('node:assert')(require('node:fs').existsSync('app.db-coord'));
"""
SHELL_END = """INSERT INTO t VALUES (1);
.system test -e app.db-coord && echo queued
"""
C_BEGIN = """
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
"""
C_END = """
sqlite3 *db = NULL;
if (code != SQLITE_OK || sqlite3_open("app.db", &db) != SQLITE_OK) return 1;
if (sqlite3_exec(db, "INSERT INTO t VALUES (1)", NULL, NULL, NULL) != SQLITE_OK) return 2;
return access("app.db-coord", F_OK) == 0 ? 0 : 3;
}
"""
RUBY_END = """
db.execute('INSERT INTO t VALUES (1)')
abort 'no side file' unless File.exist?('app.db-coord')
"""
PHP_END = """
$db->exec('INSERT INTO t VALUES (1)');
if (!file_exists('app.db-coord')) exit(1);
$db->close();
$pdo = new PDO('sqlite:app.db');
$pdo->exec('INSERT INTO t VALUES (2)');
if (!file_exists('app.db-coord')) exit(2);
"""
GO_BEGIN = """package main

import (
	"database/sql"
	"log"
	"os"

	"github.com/mattn/go-sqlite3"
)

func main() {
"""
GO_END = """
	if err == nil {
		_, err = db.Exec("INSERT INTO t VALUES (1)")
	}
	if err == nil {
		_, err = os.Stat("app.db-coord")
	}
	if err != nil {
		log.Fatal(err)
	}
}
"""


def snippet(section, language, number=0):
    """The code of that language, below the heading of the section."""
    document = (ROOT / "docs" / "stock-sqlite.md").read_text()
    text = re.split(r"^##+ ", document.split(f"\n### {section}\n", 1)[1], flags=re.M)[0]
    code = re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)[number]
    return code.replace("/opt/app/libwalqueue.so", str(LIBRARY))


def succeeds(command, **options):
    try:
        return subprocess.run(command, capture_output=True, **options).returncode == 0
    except FileNotFoundError:
        return False


class Snippets(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        stock = sqlite3.connect(str(self.folder / "app.db"))
        stock.execute("PRAGMA journal_mode = WAL")
        stock.execute("CREATE TABLE t(a)")
        stock.close()

    def leave_out(self, language, why):
        line = f"not checked: the lines for {language} in docs/stock-sqlite.md: {why}"
        print(line, file=sys.stderr)
        if "WAL_UNCHECKED" in os.environ:
            with open(os.environ["WAL_UNCHECKED"], "a") as file:
                file.write(line + "\n")
        self.skipTest(why)

    def run_file(self, name, text, command, **options):
        (self.folder / name).write_text(text)
        subprocess.run(command, cwd=self.folder, check=True, timeout=PATIENCE, **options)

    def test_python(self):
        text = snippet("Python", "python") + PYTHON_END
        self.run_file("a.py", text, [PYTHON, "a.py"])

    def run_node(self, number):
        # The modules of the test, and those of the package.
        modules = [os.environ.get("NODE_PATH", ""), f"{NODE_FOLDER}/node_modules"]
        environment = {**os.environ, "NODE_PATH": os.pathsep.join(modules)}
        text = snippet("Node", "js", number) + NODE_END
        self.run_file("a.js", text, ["node", "a.js"], env=environment)

    def test_better_sqlite3(self):
        if NODE_FOLDER is None:
            self.leave_out("better-sqlite3", "Node has none; run `make tools`")
        self.run_node(0)

    def test_node_sqlite(self):
        if NODE_FOLDER is None or not succeeds(["node", "-e", "require('node:sqlite')"]):
            self.leave_out("node:sqlite", "Node has none; install Node.js 24")
        self.run_node(1)

    def test_shell(self):
        if shutil.which("sqlite3") is None:
            self.leave_out("the shell", "there is no sqlite3 on PATH; install Debian's package sqlite3")
        lines = snippet("The sqlite3 shell", "")
        commands = re.findall(r"^sqlite> (.*\n)", lines, re.M)
        text = "".join(commands).replace("target/extension/libwalqueue.so", str(LIBRARY))
        shell = subprocess.run(
            ["sqlite3", "-bail"],
            cwd=self.folder,
            input=text + SHELL_END,
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.assertIn("queued", shell.stdout)

    def test_c(self):
        if not succeeds(["cc", "-E", "-"], input=b"#include <sqlite3.h>"):
            self.leave_out("C", "there is no sqlite3.h; install Debian's package libsqlite3-dev")
        text = C_BEGIN + snippet("C", "c") + C_END
        self.run_file("a.c", text, ["cc", "-o", "a", "a.c", "-lsqlite3"])
        subprocess.run(["./a"], cwd=self.folder, check=True, timeout=PATIENCE)

    def test_ruby(self):
        if not succeeds(["ruby", "-e", "require 'sqlite3'"]):
            self.leave_out("Ruby", "there is no Ruby with sqlite3; install Debian's package ruby-sqlite3")
        text = snippet("Ruby and Rails", "ruby") + RUBY_END
        self.run_file("a.rb", text, ["ruby", "a.rb"])

    def test_php(self):
        has_drivers = "exit(class_exists('SQLite3') && extension_loaded('pdo_sqlite') ? 0 : 1);"
        if not succeeds(["php", "-r", has_drivers]):
            self.leave_out("PHP", "there is no PHP with SQLite; install Debian's packages php-cli and php-sqlite3")
        text = "<?php\n" + snippet("PHP", "php") + PHP_END
        setting = f"sqlite3.extension_dir={LIBRARY.parent}"
        self.run_file("a.php", text, ["php", "-d", setting, "a.php"])

    def test_go(self):
        if not succeeds(["go", "list", "-tags", "libsqlite3", "github.com/mattn/go-sqlite3"]):
            package = "golang-github-mattn-go-sqlite3-dev"
            self.leave_out("Go", f"GOPATH has no mattn/go-sqlite3; install Debian's package {package}")
        text = GO_BEGIN + snippet("Go", "go") + GO_END
        self.run_file("a.go", text, ["go", "run", "-tags", "libsqlite3", "a.go"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--node", metavar="FOLDER")
    arguments = parser.parse_args()
    PYTHON = arguments.pythons[0]
    NODE_FOLDER = arguments.node
    unittest.main(argv=sys.argv[:1])
