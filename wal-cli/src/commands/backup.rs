//! `walctl backup`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Copies one snapshot of a database while other processes write.
#[derive(Args)]
pub(crate) struct Backup {
    /// The database.
    database: PathBuf,
}

impl Backup {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: backup is not built yet", self.database.display())
    }
}
