#!/usr/bin/env python3
"""Draws docs/pictures/top.svg: `walctl top` on a database with four writers and a reader that
pins the log. Needs tmux. Usage: docs/pictures/make.py path/to/walctl"""

import html
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

WIDTH, HEIGHT = 80, 24
COLORS = {"32": "#4ec96e", "33": "#e5b93c", "36": "#45b8cc"}
WEIGHTS = {"1": ' font-weight="bold"', "2": ' opacity="0.6"'}
WRITER = """
import sqlite3
db = sqlite3.connect('app.db', timeout=30, isolation_level=None)
while True: db.execute('INSERT INTO t VALUES (randomblob(300))')
"""
READER = """
import sqlite3, time
db = sqlite3.connect('app.db', isolation_level=None)
db.execute('BEGIN'); db.execute('SELECT * FROM t').fetchall(); time.sleep(60)
"""


def spans(line):
    """The runs of a captured line, each with its style."""
    style = ""
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        codes = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if not codes:
            if part:
                yield style, part
            continue
        for code in codes[1].split(";"):
            if code in ("", "0"):
                style = ""
            elif code in WEIGHTS:
                style = style.replace(WEIGHTS[code], "") + WEIGHTS[code]
            elif code in COLORS or code == "39":
                style = re.sub(r' fill="[^"]*"', "", style)
                style += f' fill="{COLORS[code]}"' if code in COLORS else ""


def svg(screen):
    rows = []
    for number, line in enumerate(screen.split("\n")[:HEIGHT]):
        x = 10.0
        for style, text in spans(line):
            width = len(text) * 8.4
            rows.append(
                f'<text x="{x:.1f}" y="{24 + number * 17}" textLength="{width:.1f}" '
                f'lengthAdjust="spacingAndGlyphs" xml:space="preserve"{style}>'
                f"{html.escape(text)}</text>"
            )
            x += width
    width, height = round(WIDTH * 8.4 + 20), HEIGHT * 17 + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="monospace" font-size="14" fill="#d8dee9">\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="#1b1f27"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def main():
    walctl = pathlib.Path(sys.argv[1]).resolve()
    target = pathlib.Path(__file__).resolve().parent / "top.svg"
    with tempfile.TemporaryDirectory() as folder:
        setup = "import sqlite3; db = sqlite3.connect('app.db'); db.execute('PRAGMA journal_mode=wal')"
        subprocess.run(["python3", "-c", setup + "; db.execute('CREATE TABLE t(x)')"], cwd=folder, check=True)
        names = {"writer.py": WRITER, "reader.py": READER}
        for name, text in names.items():
            pathlib.Path(folder, name).write_text(text)
        tmux = ["tmux", "-L", f"walctl-{os.getpid()}"]
        children = []
        try:
            for name in ["writer.py"] * 4 + ["reader.py"]:
                children.append(subprocess.Popen(["python3", name], cwd=folder))
                time.sleep(0.3)
            command = f"cd {shlex.quote(folder)} && {shlex.quote(str(walctl))} top app.db --interval 300ms"
            size = ["-x", str(WIDTH), "-y", str(HEIGHT)]
            subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", *size, command], check=True)
            time.sleep(9)
            capture = [*tmux, "capture-pane", "-p", "-e"]
            screen = subprocess.run(capture, check=True, capture_output=True, text=True).stdout
        finally:
            subprocess.run([*tmux, "kill-server"], check=False)
            for child in children:
                child.kill()
                child.wait()
    target.write_text(svg(screen.replace(folder, "/srv")))
    print(re.sub(r"\x1b\[[0-9;]*m", "", screen))


main()
