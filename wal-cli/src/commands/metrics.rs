//! `walctl metrics`

use std::path::PathBuf;

use clap::Args;

use crate::exit::Exit;
use crate::output::Output;

/// Exports figures of databases for Prometheus and other collectors.
#[derive(Args)]
pub(crate) struct Metrics {
    /// The database.
    database: PathBuf,
}

impl Metrics {
    pub(crate) fn run(&self, _output: &Output) -> anyhow::Result<Exit> {
        anyhow::bail!("{}: metrics is not built yet", self.database.display())
    }
}
