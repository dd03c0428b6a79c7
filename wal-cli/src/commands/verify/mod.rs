//! `walctl verify`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Checks the log, the index and the database file, and says what a recovery would give.
#[derive(Args)]
pub(crate) struct Verify {
    /// The database.
    database: PathBuf,
}

impl Verify {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: verify is not built yet", self.database.display())
    }
}
