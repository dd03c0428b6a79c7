//! The measurements.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use wal::{Database, DatabaseKind, LockKind, Options, PageNo, Synchronous};
use wal_core::LockMode;
use wal_core::storage::ByteLocks;

use super::Latency;
use super::folder::Folder;
use crate::interrupt::Interrupt;
use crate::output::Progress;

/// What is written and synced at a time, a page of most databases.
const PAGE: [u8; 4096] = [0x5a; 4096];
/// What is written in sequence before a sync, in bytes.
const RUN: usize = 16 << 20;
/// The length of the files, in bytes: writing begins again at their start.
const FILE: u64 = 64 << 20;
/// How often something fast is done between two looks at the clock.
const BATCH: u32 = 256;
/// How long a waiter waits for a commit that another thread makes at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A run of all measurements.
pub(super) struct Run<'a> {
    folder: &'a Folder,
    started: Instant,
    total: Duration,
    interrupt: Interrupt,
    progress: Progress,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        folder: &'a Folder,
        total: Duration,
        interrupt: Interrupt,
        progress: Progress,
    ) -> Self {
        Run {
            folder,
            started: Instant::now(),
            total,
            interrupt,
            progress,
        }
    }

    pub(super) fn sync_append(&mut self) -> anyhow::Result<Latency> {
        let file = self.file("append")?;
        let mut end = 0;
        self.latency(20, || {
            file.write_all_at(&PAGE, end)?;
            file.sync_data()?;
            end += PAGE.len() as u64;
            Ok(())
        })
    }

    pub(super) fn sync_overwrite(&mut self) -> anyhow::Result<Latency> {
        let file = self.file("overwrite")?;
        file.write_all_at(&PAGE.repeat(64), 0)?;
        file.sync_all()?;
        let mut page = 0;
        self.latency(15, || {
            file.write_all_at(&PAGE, page * PAGE.len() as u64)?;
            file.sync_data()?;
            page = (page + 1) % 64;
            Ok(())
        })
    }

    /// In bytes a second.
    pub(super) fn write(&mut self) -> anyhow::Result<f64> {
        let file = self.file("sequence")?;
        let run = vec![0x5a; RUN];
        let mut at = 0;
        let per_s = self.rate(15, 1, || {
            file.write_all_at(&run, at)?;
            file.sync_data()?;
            at = (at + RUN as u64) % FILE;
            Ok(())
        })?;
        Ok(per_s * RUN as f64)
    }

    /// In seconds.
    pub(super) fn lock(&mut self) -> anyhow::Result<f64> {
        let file = self.file("lock")?;
        let locks = ByteLocks::new(LockKind::OpenFileDescription);
        let per_s = self.rate(5, BATCH, || {
            if !locks.try_lock(&file, 0..1, LockMode::Exclusive)? {
                bail!("another process has locked a file of the measurement");
            }
            Ok(locks.unlock(&file, 0..1)?)
        })?;
        Ok(1.0 / per_s)
    }

    /// In seconds.
    pub(super) fn read(&mut self) -> anyhow::Result<f64> {
        let database = self.store("reads", Synchronous::Off)?;
        let per_s = self.rate(5, BATCH, || {
            let read = database.begin_read()?;
            std::hint::black_box(read.page(PageNo::ONE)?[0]);
            Ok(())
        })?;
        Ok(1.0 / per_s)
    }

    pub(super) fn commits(&mut self, level: Synchronous, name: &str) -> anyhow::Result<f64> {
        let database = self.store(name, level)?;
        let page = PageNo::new(2)?;
        self.rate(10, 1, || {
            let mut write = database.begin_write()?;
            let byte = &mut write.page_mut(page)?[0];
            *byte = byte.wrapping_add(1);
            write.commit()?;
            Ok(())
        })
    }

    /// A thread waits for each commit of this one.
    pub(super) fn wake_up(&mut self) -> anyhow::Result<Latency> {
        let writer = self.store("wake-up", Synchronous::Off)?;
        let reader = writer.clone();
        let page = PageNo::new(2)?;
        // The waiter sends when it is about to wait, and when it has seen the commit.
        let (is_ready, ready) = mpsc::channel();
        let (has_seen, seen) = mpsc::channel();
        let waiter = std::thread::Builder::new()
            .name("waiter".into())
            .spawn(move || -> wal::Result<()> {
                loop {
                    let snapshot = *reader.begin_read()?.snapshot();
                    if is_ready.send(()).is_err() {
                        return Ok(());
                    }
                    while !reader.wait_for_change(&snapshot, PATIENCE)? {}
                    if has_seen.send(Instant::now()).is_err() {
                        return Ok(());
                    }
                }
            })
            .context("cannot start a thread")?;
        let mut times = Vec::new();
        let until = self.until(5);
        let ended = || anyhow::anyhow!("the thread that waits for commits has ended");
        loop {
            ready.recv().map_err(|_| ended())?;
            // The waiter goes to sleep meanwhile; without that a look of its own would do.
            std::thread::sleep(Duration::from_micros(200));
            let mut write = writer.begin_write()?;
            let byte = &mut write.page_mut(page)?[0];
            *byte = byte.wrapping_add(1);
            let commit = Instant::now();
            write.commit()?;
            let seen = seen.recv().map_err(|_| ended())?;
            times.push(seen.saturating_duration_since(commit));
            if self.is_over(until)? {
                break;
            }
        }
        // The waiter ends at its next message.
        drop((ready, seen));
        let mut write = writer.begin_write()?;
        write.page_mut(page)?[0] = 0;
        write.commit()?;
        match waiter.join() {
            Ok(waited) => waited?,
            Err(_) => bail!("the thread that waits for commits has panicked"),
        }
        Ok(Latency::of(times))
    }

    fn file(&self, name: &str) -> anyhow::Result<File> {
        let path = self.folder.path().join(name);
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create_new(true).open(&path);
        opened.with_context(|| format!("{}: cannot make it", path.display()))
    }

    /// A page store of two pages.
    fn store(&self, name: &str, synchronous: Synchronous) -> anyhow::Result<Database> {
        let options = Options::new()
            .kind(DatabaseKind::PageStore)
            .synchronous(synchronous)
            .allow_network_file_system(true);
        let database = options.open(self.folder.path().join(name))?;
        let mut write = database.begin_write()?;
        write.allocate()?;
        write.commit()?;
        Ok(database)
    }

    /// The end of a measurement that takes this part of 100 of the time.
    fn until(&self, part: u32) -> Instant {
        Instant::now() + self.total * part / 100
    }

    fn is_over(&mut self, until: Instant) -> anyhow::Result<bool> {
        if self.interrupt.is_set() {
            bail!("the measurement was interrupted; its folder was removed");
        }
        let part = self.started.elapsed().as_millis() * 100 / self.total.as_millis().max(1);
        self.progress
            .set(u64::try_from(part).unwrap_or(100).min(100), 100);
        Ok(Instant::now() >= until)
    }

    /// How long each `operation` takes.
    fn latency(
        &mut self,
        part: u32,
        mut operation: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Latency> {
        let until = self.until(part);
        let mut times = Vec::new();
        loop {
            let started = Instant::now();
            operation()?;
            times.push(started.elapsed());
            if self.is_over(until)? {
                return Ok(Latency::of(times));
            }
        }
    }

    /// How many times a second `operation` is done, with a look at the clock after `batch`.
    fn rate(
        &mut self,
        part: u32,
        batch: u32,
        mut operation: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        let until = self.until(part);
        let started = Instant::now();
        let mut count = 0_u32;
        loop {
            for _ in 0..batch {
                operation()?;
            }
            count = count.saturating_add(batch);
            if self.is_over(until)? {
                return Ok(f64::from(count) / started.elapsed().as_secs_f64().max(1e-9));
            }
        }
    }
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let at = |index: usize| {
            times
                .get(index.min(last))
                .map_or(0.0, Duration::as_secs_f64)
        };
        Latency {
            count: times.len() as u64,
            median_s: at(times.len() / 2),
            p99_s: at(times.len() * 99 / 100),
            max_s: at(last),
        }
    }
}
