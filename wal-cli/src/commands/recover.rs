//! `walctl recover`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Copies the newest committed state out of damaged files, which it leaves as they are.
#[derive(Args)]
pub(crate) struct Recover {
    /// The database.
    database: PathBuf,
}

impl Recover {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: recover is not built yet", self.database.display())
    }
}
