//! `walctl bench`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Measures what this machine and this file system give.
#[derive(Args)]
pub(crate) struct Bench {
    /// The database.
    database: PathBuf,
}

impl Bench {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: bench is not built yet", self.database.display())
    }
}
