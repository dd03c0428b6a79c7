//! `walctl keep`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Keeps the logs of databases short, until it is stopped.
#[derive(Args)]
pub(crate) struct Keep {
    /// The database.
    database: PathBuf,
}

impl Keep {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: keep is not built yet", self.database.display())
    }
}
