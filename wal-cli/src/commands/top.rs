//! `walctl top`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Shows the readers, the writers and the log of a database, live.
#[derive(Args)]
pub(crate) struct Top {
    /// The database.
    database: PathBuf,
}

impl Top {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: top is not built yet", self.database.display())
    }
}
