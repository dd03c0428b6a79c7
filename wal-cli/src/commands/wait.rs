//! `walctl wait`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Returns at the next commit of any process.
#[derive(Args)]
pub(crate) struct Wait {
    /// The database.
    database: PathBuf,
}

impl Wait {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: wait is not built yet", self.database.display())
    }
}
