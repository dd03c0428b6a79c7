//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use demo::bank::WORKERS;

use crate::assignment::{Assignment, Engine, Role, Setup, SynchronousName};

/// Processes share one SQLite file, and are killed at it: nothing may be lost.
///
/// Writers move money between the accounts of a bank, readers add up all
/// balances in one snapshot after the other, and one process checkpoints. Each
/// is an operating-system process of its own. Some of them work over this
/// library, the others over stock SQLite, which knows nothing of it. Every now and then one of them
/// gets SIGKILL and is started again. Every transfer that a writer reports as
/// committed is noted outside of the database. In the end the notes, the bank as
/// this library reads it and the bank as stock SQLite reads it must agree.
#[derive(Debug, Parser)]
#[command(
    name = "bank",
    after_help = "Exits with 0 if every check held, and with 1 if one did not; \
                  the last lines say which, and where the bank is kept then."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) hidden: Option<Hidden>,

    /// How long the processes work
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// Processes that move money over this library
    #[arg(long, default_value_t = 2, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(WORKERS)))]
    pub(crate) writers: u32,

    /// Processes that move money over stock SQLite; none with inproc
    #[arg(long, default_value_t = 2, value_name = "COUNT",
          default_value_if("backend", "inproc", "0"),
          value_parser = clap::value_parser!(u32).range(0..=i64::from(WORKERS)))]
    pub(crate) stock_writers: u32,

    /// Processes that check the sum of all balances in each snapshot, over this
    /// library
    #[arg(long, default_value_t = 2, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) readers: u32,

    /// The same over stock SQLite; none with inproc
    #[arg(long, default_value_t = 1, value_name = "COUNT",
          default_value_if("backend", "inproc", "0"),
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) stock_readers: u32,

    /// How they coordinate
    #[arg(long, value_enum, default_value_t = BackendName::Shm)]
    pub(crate) backend: BackendName,

    /// Accounts of the bank
    #[arg(long, default_value_t = 1000, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) accounts: u32,

    /// Bytes of a page: a power of two from 512 to 65536
    #[arg(long, default_value_t = 4096, value_name = "BYTES", value_parser = page_size)]
    pub(crate) page_size: u32,

    /// What must survive a power failure: each acknowledged transfer (full,
    /// group), or a sound bank that may have lost the last of them (normal)
    #[arg(long, value_enum, default_value_t = SynchronousName::Full)]
    pub(crate) synchronous: SynchronousName,

    /// Kill a random process this often; 0 never does
    #[arg(long, default_value = "1.0", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) kill_every: Duration,

    /// Frames in the log beyond which writers let the checkpointer catch up
    #[arg(long, default_value_t = 16384, value_name = "FRAMES")]
    pub(crate) log_limit: u32,

    /// A process that says nothing for this long is reported as hanging; at
    /// least half a second
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = patience)]
    pub(crate) patience: Duration,

    /// Which transfers are made and who is killed; a random one unless given
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// Where the bank is made, and stays; unless given, a temporary directory
    /// that is removed at the end, or kept and named after a failure
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,

    /// Run a second time, with stock SQLite in the queue of this library by the
    /// extension wal-queue, and show both runs side by side
    #[arg(long)]
    pub(crate) compare: bool,

    /// Break the bank, to see that it is noticed
    #[arg(long, value_enum, hide = true)]
    pub(crate) sabotage: Option<Sabotage>,
}

/// How a worker process is started; not for people.
#[derive(Debug, Subcommand)]
pub(crate) enum Hidden {
    #[command(hide = true)]
    Work {
        /// An [`Assignment`] in JSON.
        assignment: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    /// Processes, over a shared wal-index, and stock SQLite among them
    Shm,
    /// Threads of one process that owns the file; nobody is killed
    Inproc,
}

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// At the end, a writer's last transfer is taken from its journal.
    LoseTransfer,
    /// At the end, an account gets money from nowhere.
    Unbalance,
    /// At the end, page 1 speaks of a free page that there is not.
    Damage,
    /// Meanwhile, an account gets money from nowhere.
    UnbalanceMeanwhile,
    /// Meanwhile, a reader is stopped.
    Hang,
}

impl Arguments {
    /// Ends the program, with the usual message, if two of the arguments do not
    /// go together.
    pub(crate) fn refuse_what_cannot_be(&self) {
        let refusal = if self.writers + self.stock_writers > WORKERS {
            format!("the journal has rows for {WORKERS} writers, no more")
        } else if self.backend == BackendName::Inproc && self.stock_writers + self.stock_readers > 0
        {
            "with inproc one process owns the file, and stock SQLite cannot join".to_owned()
        } else if self.compare && self.stock_writers == 0 {
            "without writers over stock SQLite there is nothing to compare".to_owned()
        } else {
            return;
        };
        Self::command()
            .error(ErrorKind::ArgumentConflict, refusal)
            .exit()
    }

    /// Who takes part, the writers first, in the order of their numbers.
    pub(crate) fn cast(&self, setup: &Setup) -> Vec<Assignment> {
        let groups = [
            (Role::Writer, Engine::Ours, 0, self.writers),
            (
                Role::Writer,
                Engine::Stock,
                self.writers,
                self.stock_writers,
            ),
            (Role::Reader, Engine::Ours, 0, self.readers),
            (
                Role::Reader,
                Engine::Stock,
                self.readers,
                self.stock_readers,
            ),
            (Role::Checkpointer, Engine::Ours, 0, 1),
        ];
        let numbered = groups.into_iter().flat_map(|(role, engine, first, count)| {
            (first..first + count).map(move |number| (role, engine, number))
        });
        numbered
            .map(|(role, engine, number)| Assignment {
                setup: setup.clone(),
                role,
                engine,
                number,
            })
            .collect()
    }

    pub(crate) fn setup(&self, path: PathBuf, stock_queues: bool) -> Setup {
        Setup {
            path,
            stock_queues,
            accounts: self.accounts,
            writers: self.writers + self.stock_writers,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000)),
            synchronous: self.synchronous,
            log_limit: self.log_limit,
            patience: self.patience,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0 to a million".to_owned()),
    }
}

/// A process gives a sign of life ten times a second, if it gets a processor.
fn patience(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        short if short < Duration::from_millis(500) => Err("less than half a second".to_owned()),
        patience => Ok(patience),
    }
}

fn page_size(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "not a number of bytes")?;
    wal::PageSize::new(bytes)
        .map(wal::PageSize::bytes)
        .map_err(|error| error.to_string())
}
