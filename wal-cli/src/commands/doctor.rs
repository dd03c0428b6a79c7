//! `walctl doctor`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Finds what is wrong with a database and its users, and says what to do.
#[derive(Args)]
pub(crate) struct Doctor {
    /// The database.
    database: PathBuf,
}

impl Doctor {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: doctor is not built yet", self.database.display())
    }
}
