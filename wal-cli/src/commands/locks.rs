//! `walctl locks`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Lists each lock on the files of a database, and the process that holds it.
#[derive(Args)]
pub(crate) struct Locks {
    /// The database.
    database: PathBuf,
}

impl Locks {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: locks is not built yet", self.database.display())
    }
}
