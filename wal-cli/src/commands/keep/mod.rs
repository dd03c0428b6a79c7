//! `walctl keep`

mod keeper;
mod policy;
mod ready;
mod report;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use bytesize::ByteSize;
use clap::Args;

use crate::exit::Exit;
use crate::interrupt;
use crate::output::Output;
use keeper::Keeper;
use policy::Limits;

pub(crate) use report::KeepEvent;

/// Keeps the logs of databases short, until it is stopped.
///
/// The applications need no change. It waits for writes to the log without polling, copies the log
/// into the database while writers go on, and restarts the log before it reaches `--max-log`. For
/// that it keeps writers waiting for `--max-block` at once at most. A reader that does not end
/// keeps a log long, whatever is done; it is named.
///
/// It has the database open only while it makes a checkpoint. A database that is not there yet, or
/// not in WAL mode yet, is waited for.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl keep app.db
  walctl keep --max-log 16MiB --max-block 5ms app.db other.db
  walctl keep --json app.db | jq -c 'select(.event == \"held back\")'

Ctrl-C and SIGTERM end it; nothing stays held. packaging/systemd has a unit for it.")]
pub(crate) struct Keep {
    /// The databases.
    #[arg(required = true, value_name = "DATABASE")]
    databases: Vec<PathBuf>,
    /// How long a log may become.
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    max_log: ByteSize,
    /// For how long writers may be kept waiting at once.
    #[arg(long, value_name = "TIME", default_value = "20ms")]
    max_block: humantime::Duration,
}

impl Keep {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let cancel = interrupt::cancel()?;
        let interrupt = interrupt::catch()?;
        let limits = Limits {
            max_log: self.max_log.as_u64(),
            max_block: self.max_block.into(),
        };
        let waiting = AtomicUsize::new(self.databases.len());
        let has_begun = || {
            if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                ready::tell();
            }
        };
        std::thread::scope(|scope| {
            let keepers: Result<Vec<_>, _> = self
                .databases
                .iter()
                .map(|path| {
                    let keeper = Keeper::new(path, limits, output, &cancel, interrupt);
                    let run = move || keeper.run(has_begun);
                    std::thread::Builder::new()
                        .name("walctl-keep".to_owned())
                        .spawn_scoped(scope, run)
                })
                .collect();
            if keepers.is_err() {
                // Those that were started end.
                cancel.cancel();
            }
            keepers.map(drop)
        })
        .context("cannot start a thread")?;
        Ok(Exit::Done)
    }
}
