//! A process that reads at a pace until its input ends, and tells how long a read took.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use tempfile::TempDir;
use wal::{Options, PageNo};

use super::{Order, Pace, ROWS, System, connect};

/// Reads at full speed between two looks at the clock.
const BATCH: u32 = 64;

/// The other end of the process; dropped, it is killed.
pub(super) struct Reader {
    process: Child,
    output: BufReader<ChildStdout>,
    asks: bool,
    _directory: TempDir,
}

impl Reader {
    /// Starts a process, which has read once when this returns.
    pub(super) fn start(order: &Order, directory: TempDir) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("reader")
            .arg(serde_json::to_string(order)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("no output")?;
        let mut reader = Reader {
            process,
            output: BufReader::new(output),
            asks: matches!(order.pace, Pace::ThenIdle(_)),
            _directory: directory,
        };
        reader.expect("ready\n")?;
        Ok(reader)
    }

    pub(super) fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.process.id())?))
    }

    /// Lets a process that reads when it is asked do so, and waits until it has.
    pub(super) fn read_if_asked(&mut self) -> Result<()> {
        if self.asks {
            let input = self.process.stdin.as_mut().context("it has ended")?;
            input.write_all(b"\n")?;
            self.expect("done\n")?;
        }
        Ok(())
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line == expected, "a reader said {line:?}");
        Ok(())
    }

    /// Ends the process; the median of its reads in microseconds.
    pub(super) fn end(mut self) -> Result<f64> {
        drop(self.process.stdin.take());
        let mut told = String::new();
        self.output.read_to_string(&mut told)?;
        ensure!(self.process.wait()?.success(), "a reader failed");
        Ok(serde_json::from_str(&told)?)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads as `order` says.
pub(crate) fn run(order: &str) -> Result<()> {
    let order: Order = serde_json::from_str(order)?;
    let mut read = open(&order)?;
    read()?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")?;
    out.flush()?;
    let mut times = Vec::new();
    let mut timed = |count: u32| {
        let began = Instant::now();
        (0..count).try_for_each(|_| read())?;
        times.push(began.elapsed() / count);
        anyhow::Ok(())
    };
    match order.pace {
        Pace::ThenIdle(count) => {
            let batch = BATCH.min(count);
            for line in std::io::stdin().lines() {
                line?;
                (0..count / batch).try_for_each(|_| timed(batch))?;
                writeln!(out, "done")?;
                out.flush()?;
            }
        }
        pace => until_end_of_input(|| match pace {
            Pace::PerSecond(rate) => {
                timed(1)?;
                // No catching up: behind a late read there is a whole pause, too.
                thread::sleep(Duration::from_secs(1) / rate);
                Ok(())
            }
            _ => timed(BATCH),
        })?,
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).context("no time to read")?;
    writeln!(out, "{}", median.as_secs_f64() * 1e6)?;
    Ok(())
}

fn until_end_of_input(mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::stdin().lock().read(&mut [0]);
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            act()?;
        }
        Ok(())
    })
}

/// A read transaction of one page, or of one row.
fn open(order: &Order) -> Result<Box<dyn FnMut() -> Result<()>>> {
    let mut random = fastrand::Rng::with_seed(7);
    let options = match order.system {
        System::Delayed => Options::new(),
        System::Undelayed => Options::new().read_lock_delay(Duration::ZERO),
        System::Stock => {
            let connection = connect(&order.path)?;
            return Ok(Box::new(move || {
                let mut select = connection.prepare_cached("SELECT x FROM t WHERE id = ?1")?;
                select.query_row([random.u32(1..=ROWS)], |_| Ok(()))?;
                Ok(())
            }));
        }
    };
    let database = options.auto_checkpoint(0).open_shm(&order.path)?;
    let pages = database.begin_read()?.page_count();
    Ok(Box::new(move || {
        let read = database.begin_read()?;
        read.page(PageNo::new(random.u32(1..=pages))?)?;
        Ok(())
    }))
}
