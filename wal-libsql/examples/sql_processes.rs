//! Several processes run SQL on one file, with our log beneath, while stock
//! SQLite's shell reads and writes the same file.
//!
//! `cargo run -p wal-libsql --example sql_processes`
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use wal_libsql::{Connection, Value};

const PROCESSES: usize = 4;
const ROWS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(path) = env::args_os().nth(1) {
        return insert_rows(Path::new(&path));
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("shared.db");
    let db = Connection::open(&path)?;
    db.execute("PRAGMA journal_mode = WAL; CREATE TABLE visit(process INTEGER, turn INTEGER)")?;

    let program = env::current_exe()?;
    let mut processes = Vec::new();
    for _ in 0..PROCESSES {
        processes.push(Command::new(&program).arg(&path).spawn()?);
    }
    // Stock SQLite writes among them, and reads what there is so far.
    for turn in 0..10 {
        let insert = format!("INSERT INTO visit VALUES (0, {turn}); SELECT count(*) FROM visit");
        let shell = Command::new("sqlite3")
            .args(["-batch", "-cmd", ".timeout 60000"])
            .arg(&path)
            .arg(insert)
            .stderr(Stdio::inherit())
            .output()?;
        println!(
            "stock SQLite sees {} rows",
            String::from_utf8(shell.stdout)?.trim()
        );
    }
    for mut process in processes {
        if !process.wait()?.success() {
            return Err("a process failed".into());
        }
    }
    let rows = db.query("SELECT count(*) FROM visit")?;
    let expected = i64::try_from(PROCESSES * ROWS + 10)?;
    if rows != [[Value::Integer(expected)]] {
        return Err(format!("{rows:?} rows where {expected} were inserted").into());
    }
    println!("all {expected} rows are there");
    Ok(())
}

fn insert_rows(path: &Path) -> Result<(), Box<dyn Error>> {
    let db = Connection::open(path)?;
    let mut insert = db.prepare("INSERT INTO visit VALUES (?, ?)")?;
    insert.bind(1, &Value::Integer(i64::from(std::process::id())))?;
    for turn in 0..ROWS {
        insert.bind(2, &Value::Integer(i64::try_from(turn)?))?;
        insert.step()?;
        insert.reset();
    }
    Ok(())
}
