//! What the `sqlite3` shell is told and how its answers are read.
//!
//! Rows come in the shell's mode `quote`, SQL literals separated by commas and
//! line ends, because it is the one mode that keeps the types of values apart.
//! Errors come on stderr, and a `.print` on stdout marks the end of an answer:
//! the shell flushes stdout before it reads on, so once the mark is there
//! everything else of the answer is there too.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, absolute};

use anyhow::{Context, Result, bail};
use rusqlite::types::Value;

use super::PAUSING_VFS;
use super::answer::{Rows, SqlError, blob_from_hex};

/// The commands that make a new shell ready to work on `database`.
pub(super) fn opening(database: &Path, extensions: &[&Path]) -> Result<String> {
    let uri = file_uri(database)?;
    let load = |library: &&Path| format!(".load \"{}\"\n", library.display());
    let load: String = extensions.iter().map(load).collect();
    let vfs = match extensions == [Path::new(PAUSING_VFS)] {
        true => "?vfs=pausing",
        false => "",
    };
    Ok(format!("{load}.open \"{uri}{vfs}\"\n.mode quote"))
}

/// A `file:` URI, encoded so that neither SQLite nor the shell sees anything
/// special in it.
fn file_uri(path: &Path) -> Result<String> {
    let mut uri = String::from("file:");
    for &byte in absolute(path)?.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            write!(uri, "%{byte:02X}")?;
        }
    }
    Ok(uri)
}

/// What one answer says: `rows` from stdout, `errors` from stderr.
pub(super) fn decode_answer(rows: &str, errors: &str) -> Result<Result<Rows, SqlError>> {
    if !errors.is_empty() {
        return Ok(Err(decode_error(errors)));
    }
    let mut literals = Literals { rest: rows };
    let mut decoded = Vec::new();
    while !literals.rest.is_empty() {
        let row = literals
            .next_row()
            .with_context(|| format!("reading the shell's rows: {rows}"))?;
        decoded.push(row);
    }
    Ok(Ok(Rows(decoded)))
}

/// Reads `Runtime error near line 3: database is locked (5)`. The shell leaves
/// the number out where it is 1, and shows no extended code.
fn decode_error(errors: &str) -> SqlError {
    let line = errors.lines().next().unwrap_or_default();
    let message = line.split_once(": ").map_or(line, |(_, message)| message);
    let numbered = message
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" ("))
        .and_then(|(text, code)| Some((text, code.parse().ok()?)));
    let (message, code) = numbered.unwrap_or((message, rusqlite::ffi::SQLITE_ERROR));
    SqlError {
        code,
        message: message.to_owned(),
    }
}

/// SQL literals, in rows of one line each but for the line ends within texts.
struct Literals<'a> {
    rest: &'a str,
}

impl Literals<'_> {
    fn next_row(&mut self) -> Result<Vec<Value>> {
        let mut row = Vec::new();
        loop {
            row.push(self.next_value()?);
            match self.take_char() {
                Some(',') => {}
                Some('\n') | None => return Ok(row),
                Some(other) => bail!("`{other}` after a value"),
            }
        }
    }

    fn next_value(&mut self) -> Result<Value> {
        if let Some(rest) = self.rest.strip_prefix('\'') {
            self.rest = rest;
            return self.text().map(Value::Text);
        }
        if let Some(rest) = self.rest.strip_prefix("X'") {
            self.rest = rest;
            return Ok(Value::Blob(blob_from_hex(&self.text()?)?));
        }
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if word == "NULL" {
            return Ok(Value::Null);
        }
        match word.parse() {
            Ok(integer) => Ok(Value::Integer(integer)),
            Err(_) => word
                .parse()
                .map(Value::Real)
                .with_context(|| format!("`{word}` is no literal")),
        }
    }

    /// The text up to the closing quote, with doubled quotes made single.
    fn text(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            let (part, rest) = self.rest.split_once('\'').context("a text without end")?;
            text.push_str(part);
            self.rest = rest;
            match self.rest.strip_prefix('\'') {
                Some(rest) => {
                    text.push('\'');
                    self.rest = rest;
                }
                None => return Ok(text),
            }
        }
    }

    fn take_char(&mut self) -> Option<char> {
        let first = self.rest.chars().next()?;
        self.rest = &self.rest[first.len_utf8()..];
        Some(first)
    }
}
