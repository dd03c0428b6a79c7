//! Writes `fixtures/`: databases and logs by stock SQLite, and `facts.json`
//! with what stock SQLite says about them.
//!
//! Everything is written and checked in a temporary folder first, so that a
//! failed run leaves the old fixtures as they are. The pages are the same at
//! every run; SQLite draws the salts of a log and the nonce of a journal at
//! random, and with them the checksums.

mod catalogue;
mod commits;
mod facts;
mod files;
mod index;
mod indexes;
mod journals;
mod log;
mod stock;
mod tails;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use integration::fixtures::copy_folder;
use integration::fixtures::facts::Facts;

use crate::catalogue::FIXTURES;

/// Writes the fixtures anew.
#[derive(Parser)]
struct Arguments {
    /// The folder that gets one folder per fixture, and facts.json.
    target: PathBuf,
}

fn main() -> Result<()> {
    let target = Arguments::parse().target;
    let staging = tempfile::tempdir()?;
    let fixtures = FIXTURES
        .iter()
        .map(|fixture| fixture.make(&staging.path().join(fixture.name)))
        .collect::<Result<_>>()?;
    let facts = Facts {
        sqlite_version: rusqlite::version().to_owned(),
        fixtures,
    };
    for fixture in FIXTURES {
        replace_folder(
            &staging.path().join(fixture.name),
            &target.join(fixture.name),
        )?;
    }
    let mut json = serde_json::to_string_pretty(&facts)?;
    json.push('\n');
    let path = target.join("facts.json");
    fs::write(&path, json).with_context(|| format!("write {}", path.display()))
}

fn replace_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("remove {}", to.display()))?;
    }
    copy_folder(from, to).with_context(|| format!("write {}", to.display()))
}
