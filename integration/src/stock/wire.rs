//! The lines in which the stock worker answers: each row a JSON array, then
//! `ok` or `error <extended code> <name> <message>`.
//!
//! Integers, reals, texts and NULL are JSON's own; a blob is an object,
//! `{"blob":"00ff"}`.

use anyhow::{Context, Result, bail};
use rusqlite::types::{Value, ValueRef};
use serde_json::Value as Json;

use super::answer::{Rows, SqlError, blob_from_hex};

/// The line that ends the answer to a statement that succeeded.
pub const OK: &str = "ok";

/// One row as a line.
///
/// # Errors
///
/// Text that is not UTF-8 and reals that JSON does not have.
pub fn encode_row(row: &[ValueRef<'_>]) -> Result<String> {
    let cells: Vec<Json> = row
        .iter()
        .copied()
        .map(encode_cell)
        .collect::<Result<_>>()?;
    Ok(serde_json::to_string(&cells)?)
}

/// The line that ends the answer to a statement that failed.
#[must_use]
pub fn encode_error(error: &SqlError) -> String {
    let message = error.message.replace('\n', " ");
    format!("error {} {:?} {message}", error.code, error.kind())
}

/// True of the line that ends an answer.
pub(super) fn is_last(line: &str) -> bool {
    line == OK || line.starts_with("error ")
}

/// What the lines of a whole answer say.
pub(super) fn decode_answer(lines: &[String]) -> Result<Result<Rows, SqlError>> {
    let (last, rows) = lines.split_last().context("an empty answer")?;
    if last == OK {
        return Ok(Ok(Rows(
            rows.iter()
                .map(|line| decode_row(line))
                .collect::<Result<_>>()?,
        )));
    }
    let mut words = last.splitn(4, ' ').skip(1);
    let code = words.next().context("an error without its code")?.parse()?;
    let message = words.nth(1).unwrap_or_default().to_owned();
    Ok(Err(SqlError { code, message }))
}

fn encode_cell(cell: ValueRef<'_>) -> Result<Json> {
    Ok(match cell {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(integer) => integer.into(),
        ValueRef::Real(real) if real.is_finite() => real.into(),
        ValueRef::Real(real) => bail!("JSON has no {real}"),
        ValueRef::Text(_) => cell.as_str()?.into(),
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "blob": hex })
        }
    })
}

fn decode_row(line: &str) -> Result<Vec<Value>> {
    let cells: Vec<Json> =
        serde_json::from_str(line).with_context(|| format!("a row that is no array: {line}"))?;
    cells.into_iter().map(decode_cell).collect()
}

fn decode_cell(cell: Json) -> Result<Value> {
    Ok(match cell {
        Json::Null => Value::Null,
        Json::String(text) => Value::Text(text),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64().context("a number out of range")?),
        },
        Json::Object(object) => {
            let hex = object.get("blob").and_then(Json::as_str);
            Value::Blob(blob_from_hex(hex.context("an object that is no blob")?)?)
        }
        other => bail!("a cell of an unknown kind: {other}"),
    })
}
