//! W2n, W2p, W2t, M1, N1 and S-read, S-readt, S-write: several processes at once, or
//! threads.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::measure::{Bench, Scale, of_latencies};
use crate::report::Sample;
use crate::systems::{self, Settings, Store, System};
use crate::worker::{self, Order, Role, Told};

/// How many records there are.
const RECORDS: u32 = 1000;

/// A process that does one thing for a while (`worker`, `queue`).
pub(crate) struct Worker {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a process, which is ready when this returns.
    fn start(order: &Order) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg(serde_json::to_string(order)?);
        Self::spawn(command)
    }

    /// Starts `command`, which prints `ready` when it is.
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().context("no output")?;
        let mut worker = Worker {
            process,
            output: BufReader::new(output),
        };
        ensure!(worker.line()? == "ready\n", "a process did not start");
        Ok(worker)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// Starts its work.
    pub(crate) fn go(&mut self) -> Result<()> {
        let mut input = self.process.stdin.take().context("it was started")?;
        Ok(writeln!(input)?)
    }

    /// Waits until it ends, and returns what it printed.
    pub(crate) fn end<T: DeserializeOwned>(mut self) -> Result<T> {
        let told = serde_json::from_str(&self.line()?)?;
        ensure!(self.process.wait()?.success(), "a process failed");
        Ok(told)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What processes of a row have in common.
struct Group {
    system: System,
    directory: PathBuf,
    settings: Settings,
    duration: Duration,
    /// Keeps the store open, so that no process is the last one.
    store: Box<dyn Store>,
}

impl Group {
    fn new(system: System, directory: &Path, settings: Settings, scale: Scale) -> Result<Self> {
        let mut store = systems::open(system, directory, settings)?;
        systems::fill(&mut *store, RECORDS)?;
        Ok(Group {
            system,
            directory: directory.to_owned(),
            settings,
            duration: scale.duration(),
            store,
        })
    }

    fn order(&self, role: Role, seed: u64) -> Order {
        Order {
            system: self.system,
            directory: self.directory.clone(),
            settings: self.settings,
            records: RECORDS,
            role,
            duration: self.duration,
            seed,
        }
    }

    /// Runs a process for each of `roles`.
    fn run(&self, roles: &[Role]) -> Result<Vec<Told>> {
        let start = |(role, seed): (&Role, u64)| Worker::start(&self.order(*role, seed));
        let mut workers: Vec<Worker> = roles.iter().zip(1..).map(start).collect::<Result<_>>()?;
        workers.iter_mut().try_for_each(Worker::go)?;
        workers.into_iter().map(Worker::end).collect()
    }
}

impl Group {
    /// Runs `count` threads of this process.
    fn run_threads(&self, role: Role, count: usize) -> Result<Vec<Told>> {
        let stores = (0..count).map(|_| self.store.another());
        let stores: Vec<Box<dyn Store>> = stores.collect::<Result<_>>()?;
        let ready = &Barrier::new(count);
        std::thread::scope(|scope| {
            let start = |(mut store, seed): (Box<dyn Store>, u64)| {
                let order = self.order(role, seed);
                let line_up = move || {
                    ready.wait();
                    Ok(())
                };
                scope.spawn(move || worker::repeat(&mut *store, &order, line_up))
            };
            let threads: Vec<_> = stores.into_iter().zip(1..).map(start).collect();
            let told = threads.into_iter().map(|thread| {
                let told = thread.join();
                told.map_err(|_| anyhow::anyhow!("a thread panicked"))?
            });
            told.collect()
        })
    }
}

/// What those who did `role` side by side reached. Reads are too short for each to be
/// timed.
#[allow(clippy::cast_precision_loss)] // Counts, for people to read.
fn together(role: Role, told: &[Told]) -> Sample {
    let rates = || told.iter().map(|told| told.count as f64 / told.seconds);
    let (least, most) = (
        rates().fold(f64::INFINITY, f64::min),
        rates().fold(0.0, f64::max),
    );
    let longest = |of: fn(&Told) -> f64| told.iter().map(of).fold(0.0, f64::max);
    Sample {
        value: rates().sum(),
        tail: (role != Role::Read).then(|| longest(|told| told.tail)),
        worst: (role != Role::Read).then(|| longest(|told| told.worst)),
        fairness: Some(least / most),
    }
}

/// So many processes that all do the same.
pub(crate) fn same(
    system: System,
    directory: &Path,
    scale: Scale,
    settings: Settings,
    roles: (Role, usize),
) -> Result<Box<dyn Bench>> {
    let group = Group::new(system, directory, settings, scale)?;
    let (role, count) = roles;
    Ok(Box::new(move || {
        let told = group.run(&vec![role; count])?;
        Ok(together(role, &told))
    }))
}

/// W2t, S-readt: so many threads of one process.
pub(crate) fn threads(
    system: System,
    directory: &Path,
    scale: Scale,
    settings: Settings,
    (role, count): (Role, usize),
) -> Result<Box<dyn Bench>> {
    let group = Group::new(system, directory, settings, scale)?;
    Ok(Box::new(move || {
        Ok(together(role, &group.run_threads(role, count)?))
    }))
}

/// M1: three readers and a writer, of which one side is told.
pub(crate) fn mixed(
    system: System,
    directory: &Path,
    scale: Scale,
    settings: Settings,
    side: Role,
) -> Result<Box<dyn Bench>> {
    let group = Group::new(system, directory, settings, scale)?;
    Ok(Box::new(move || {
        let told = group.run(&[Role::Read, Role::Read, Role::Read, Role::Write])?;
        let (readers, writer) = told.split_at(3);
        Ok(match side {
            Role::Write => Sample {
                fairness: None,
                ..together(side, writer)
            },
            _ => together(side, readers),
        })
    }))
}

/// N1: from a commit here to the return of a wait there.
pub(crate) fn notify(directory: &Path, scale: Scale, settings: Settings) -> Result<Box<dyn Bench>> {
    let mut group = Group::new(System::Shm, directory, settings, scale)?;
    let mut store = systems::open(System::Shm, directory, settings)?;
    let count = scale.choose(200, 100, 5);
    // Longer than a wake-up takes, so that each is seen by itself.
    let pause = Duration::from_millis(2);
    group.duration = pause * count * 3;
    Ok(Box::new(move || {
        let mut waiter = Worker::start(&group.order(Role::Wait, 0))?;
        waiter.go()?;
        let mut committed = Vec::new();
        for turn in 0..count {
            let next = Instant::now() + pause;
            // The commit itself is a part of it.
            committed.push(worker::now()?);
            store.write(&[1], turn.to_le_bytes()[0])?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let told: Told = waiter.end()?;
        let mut latencies: Vec<Duration> = Vec::new();
        for at in committed {
            if let Some(seen) = told.seen.iter().find(|&&seen| seen > at) {
                latencies.push(Duration::from_nanos(seen - at));
            }
        }
        ensure!(!latencies.is_empty(), "no change was seen");
        latencies.sort_unstable();
        let middle = latencies[latencies.len() / 2];
        Ok(Sample {
            value: middle.as_secs_f64() * 1e6,
            ..of_latencies(latencies, 100)
        })
    }))
}

/// Runs one process alone, for who looks at its system calls: the process is
/// started by `wrap`.
pub(crate) fn command(order: &Order) -> Result<Vec<std::ffi::OsString>> {
    Ok(vec![
        std::env::current_exe()?.into_os_string(),
        "worker".into(),
        serde_json::to_string(order)?.into(),
    ])
}
