//! `walctl info`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Shows how long the log is, what a checkpoint would do now, and which process blocks it.
#[derive(Args)]
pub(crate) struct Info {
    /// The database.
    database: PathBuf,
}

impl Info {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: info is not built yet", self.database.display())
    }
}
