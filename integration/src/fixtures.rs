//! The fixtures in `fixtures/`, and what stock SQLite says of them.
//!
//! [`facts`] owns the schema of `facts.json`, which `make-fixtures` writes and
//! [`all`] reads; [`folder`] owns what a folder of database files looks like
//! from outside, so that a test can show that nothing was touched; [`reading`]
//! reads a whole database in each of the ways that the library has.
//!
//! A fixture is never opened in place, since the last one to close a database
//! deletes its log: [`Fixture::copy`] gives a copy in a folder of its own.

pub mod facts;
pub mod folder;
pub mod reading;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use facts::{Facts, FixtureFacts};

/// The database file of every fixture.
pub const DATABASE: &str = "app.db";
/// Its log.
pub const LOG: &str = "app.db-wal";
/// Its wal-index.
pub const INDEX: &str = "app.db-shm";
/// Its rollback journal.
pub const JOURNAL: &str = "app.db-journal";

/// A fixture, as it lies in the repository.
#[derive(Debug)]
pub struct Fixture {
    /// What stock SQLite says of it.
    pub facts: FixtureFacts,
    folder: PathBuf,
}

impl Fixture {
    /// A copy that may be opened.
    ///
    /// # Errors
    /// Whatever the system gives.
    pub fn copy(&self) -> Result<Copy> {
        let folder = tempfile::tempdir()?;
        copy_folder(&self.folder, folder.path())?;
        Ok(Copy { folder })
    }

    /// One of the fixture's files, by its name.
    ///
    /// # Errors
    /// If the fixture has no such file.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        fs::read(&path).with_context(|| format!("read {}", path.display()))
    }
}

/// A copy of a fixture, which is gone when this is.
#[derive(Debug)]
pub struct Copy {
    folder: TempDir,
}

impl Copy {
    /// The folder of the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder().join(DATABASE)
    }

    /// The log, whether or not there is one.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder().join(LOG)
    }

    /// The wal-index, whether or not there is one.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.folder().join(INDEX)
    }
}

/// Every fixture, in the order of `facts.json`.
///
/// # Errors
/// If `facts.json` cannot be read.
pub fn all() -> Result<Vec<Fixture>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let json = fs::read(root.join("facts.json")).context("read facts.json")?;
    let facts: Facts = serde_json::from_slice(&json).context("parse facts.json")?;
    let fixtures = facts.fixtures.into_iter().map(|facts| Fixture {
        folder: root.join(&facts.name),
        facts,
    });
    Ok(fixtures.collect())
}

/// The fixture of that name.
///
/// # Errors
/// If there is none.
pub fn named(name: &str) -> Result<Fixture> {
    all()?
        .into_iter()
        .find(|fixture| fixture.facts.name == name)
        .with_context(|| format!("no fixture {name}"))
}

/// SHA-256 of every page of a database file without a log, in hex.
///
/// # Errors
/// If the file cannot be read, or ends within a page.
pub fn file_digests(database: &Path, page_size: usize) -> Result<Vec<String>> {
    let bytes = fs::read(database)?;
    ensure!(
        bytes.len().is_multiple_of(page_size),
        "a database of {} bytes",
        bytes.len()
    );
    Ok(bytes.chunks_exact(page_size).map(page_digest).collect())
}

/// SHA-256 of a page in hex, as it stands in `facts.json`.
#[must_use]
pub fn page_digest(page: &[u8]) -> String {
    Sha256::digest(page)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Copies all files of a folder that has no folders in it.
///
/// # Errors
/// Whatever the system gives.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
