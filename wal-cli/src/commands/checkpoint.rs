//! `walctl checkpoint`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Moves the frames of the log into the database file.
#[derive(Args)]
pub(crate) struct Checkpoint {
    /// The database.
    database: PathBuf,
}

impl Checkpoint {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: checkpoint is not built yet", self.database.display())
    }
}
