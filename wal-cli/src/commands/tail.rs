//! `walctl tail`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Lists commits as they happen.
#[derive(Args)]
pub(crate) struct Tail {
    /// The database.
    database: PathBuf,
}

impl Tail {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: tail is not built yet", self.database.display())
    }
}
