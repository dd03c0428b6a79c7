//! `walctl frames`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Lists the transactions and frames of the log.
#[derive(Args)]
pub(crate) struct Frames {
    /// The database.
    database: PathBuf,
}

impl Frames {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: frames is not built yet", self.database.display())
    }
}
