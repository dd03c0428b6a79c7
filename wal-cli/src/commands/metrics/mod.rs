//! `walctl metrics`
//!
//! | file | what it owns |
//! |---|---|
//! | `families` | the names, the help and the values of the metrics |

mod families;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use crate::exit::Exit;
use crate::exporter::{self, Render};
use crate::output::Output;
use crate::sampler::Sampler;

/// Exports figures of databases for Prometheus and other collectors.
///
/// It acquires no lock and writes nothing into the databases. A database that is not there has
/// `walctl_up 0`, and is looked for again at the next scrape. Without `--listen` and
/// `--textfile` it prints the metrics once.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl metrics app.db
  walctl metrics app.db queue.db --listen 127.0.0.1:9464
  walctl metrics app.db --textfile /var/lib/node_exporter/walctl.prom

The metrics are at http://ADDRESS/metrics, and listed in docs/metrics.md.")]
pub(crate) struct Metrics {
    /// The databases.
    #[arg(required = true)]
    databases: Vec<PathBuf>,
    /// Answers HTTP requests here; port 0 chooses a free one. Anyone who reaches the address
    /// can read the metrics.
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:9464",
        conflicts_with = "textfile"
    )]
    listen: Option<SocketAddr>,
    /// Writes this file, whole at each moment, again and again.
    #[arg(long, value_name = "PATH")]
    textfile: Option<PathBuf>,
    /// How often the file is written.
    #[arg(long, value_name = "TIME", default_value = "15s")]
    interval: humantime::Duration,
    /// Prints, or writes the file, once.
    #[arg(long, conflicts_with = "listen")]
    once: bool,
}

impl Metrics {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        // A database that is named twice has one set of metrics.
        let databases: BTreeSet<&PathBuf> = self.databases.iter().collect();
        let samplers = databases.into_iter().map(|path| Sampler::new(path));
        let mut samplers: Vec<Sampler> = samplers.collect();
        if self.listen.is_none() && self.textfile.is_none() && output.is_json() {
            for sampler in &mut samplers {
                output.print(&sampler.look()?)?;
            }
            return Ok(Exit::Done);
        }
        // A scrape looks at all databases; a second one waits for it, some milliseconds.
        let samplers = Mutex::new(samplers);
        let render: Arc<Render> = Arc::new(move || {
            let mut samplers = samplers.lock().unwrap_or_else(PoisonError::into_inner);
            families::text(&mut samplers)
        });
        let interval: Duration = self.interval.into();
        match (self.listen, &self.textfile) {
            (Some(address), _) => exporter::listen(address, render, |address| {
                let mut out = io::stdout().lock();
                writeln!(out, "listening at http://{address}/metrics")?;
                out.flush()
            })?,
            (None, Some(path)) => {
                // A busy loop would be no use to a collector that reads each few seconds.
                let interval = interval.max(Duration::from_millis(100));
                exporter::write_file(path, interval, self.once, &*render)?;
            }
            (None, None) => {
                let mut out = io::stdout().lock();
                out.write_all(render()?.as_bytes())?;
                out.flush()?;
            }
        }
        Ok(Exit::Done)
    }
}
