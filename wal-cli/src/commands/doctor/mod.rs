//! `walctl doctor`
//!
//! | file | what it owns |
//! |---|---|
//! | `facts` | what is looked up, once for all checks |
//! | `findings` | what was found, and the report |
//! | `lost` | locks that were lost, files that were removed or replaced |
//! | `pairs` | a log, an index and a database that do not belong together |
//! | `growth` | a long log, and what keeps it long; old readers |
//! | `holders` | stopped processes, held locks, the queue |
//! | `peers` | versions of SQLite, containers, descriptors of the processes |
//! | `files` | file systems, owners, names, journals, leftovers, free space |

mod facts;
mod files;
mod findings;
mod growth;
mod holders;
mod lost;
mod pairs;
mod peers;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::facts::{Facts, Options};
pub(crate) use self::findings::DoctorReport;
use self::findings::Findings;
use crate::exit::Exit;
use crate::output::Output;

/// Finds what is wrong with a database and its users, and says what to do.
///
/// It acquires no lock and writes nothing. It looks several times, so that what lasts a moment
/// is not reported. A note is for your information, a warning needs attention, and a danger can
/// lose data, or has.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl doctor app.db
  sudo walctl doctor app.db       sees the processes of all users
  walctl doctor --old-reader 30s app.db
  walctl doctor --json app.db | jq -r '.findings[].name'

Exit codes:
  0  healthy; notes are allowed
  4  a warning
  5  a danger to data, or damage")]
pub(crate) struct Doctor {
    /// The database.
    database: PathBuf,
    /// How long to look at the processes of this machine.
    #[arg(long, value_name = "TIME", default_value = "2s")]
    budget: humantime::Duration,
    /// From which age on a reader that keeps the log long is old.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    old_reader: humantime::Duration,
}

/// Each looks at the facts for one kind of fault.
const CHECKS: [fn(&Facts, &mut Findings); 23] = [
    lost::locks,
    lost::removed_files,
    lost::generations,
    pairs::foreign_log,
    pairs::missing_files,
    pairs::index_against_log,
    pairs::unsound_index,
    growth::long_log,
    growth::long_file,
    growth::old_readers,
    holders::stopped,
    holders::long_write,
    holders::dead_waiters,
    peers::old_sqlite,
    peers::containers,
    peers::descriptors,
    files::file_system,
    files::owners,
    files::directory,
    files::names,
    files::journal,
    files::leftovers,
    files::free_space,
];

impl Doctor {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let facts = Facts::gather(
            &self.database,
            Options {
                budget: Duration::from(self.budget),
                old_reader: Duration::from(self.old_reader),
            },
        )?;
        let mut findings = Findings::default();
        for check in CHECKS {
            check(&facts, &mut findings);
        }
        let report = findings.into_report(&facts, CHECKS.len());
        output.print(&report)?;
        Ok(report.exit())
    }
}
