//! What is looked up, once for all checks.
//!
//! The locks, the index and the open files are looked at several times: a process that just
//! opens or closes the database is between two steps in one of the looks at most. In each look
//! the open files come first and the locks afterwards, so a lock that is acquired before its
//! file is opened is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use wal_core::inspect::{DatabaseInfo, IndexInfo, LogInfo, read_database, read_index, read_log};
use wal_core::storage::{File as _, OsFile};
use wal_core::{Lock, PageSize};
use wal_shm::inspect::{
    Builds, Census, DatabaseFile, LockByte, OpenFile, OpenFiles, ProcessInfo, SideView,
    SqliteBuild, Unseen,
};

use crate::look::observe;

/// How often the locks and the index are looked at.
const LOOKS: usize = 6;
/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the same process must hold `WRITE` without a commit before that is reported.
pub(super) const LONG_WRITE: Duration = Duration::from_secs(1);
/// How many processes are looked into again in each look.
const PEERS: usize = 256;

/// What the user has asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) budget: Duration,
    pub(super) old_reader: Duration,
}

/// One look at the locks and the index.
#[derive(Debug)]
pub(super) struct Sample {
    at: Instant,
    /// The files that processes other than this one have open.
    pub(super) open: Vec<OpenFile>,
    pub(super) census: Census,
    pub(super) index: Option<IndexInfo>,
    /// What was read of the log after the index; `None` if there is none.
    pub(super) log: Option<LogInfo>,
    /// Whether the index was the same after the log was read.
    pub(super) is_settled: bool,
}

/// What the checks go by.
#[derive(Debug)]
pub(super) struct Facts {
    /// The path of the database, without symbolic links where it leads to a file.
    pub(super) path: PathBuf,
    /// The path that the user has named.
    pub(super) named: PathBuf,
    pub(super) options: Options,
    pub(super) time: SystemTime,
    pub(super) took: Duration,
    /// `None` if the database file is missing.
    pub(super) database: Option<(OsFile, DatabaseInfo)>,
    pub(super) log: Option<OsFile>,
    /// At least one.
    pub(super) samples: Vec<Sample>,
    /// The side file in the first and in the last look.
    pub(super) side: [Option<SideView>; 2],
    /// The builds of SQLite that the users of the database have mapped.
    pub(super) builds: BTreeMap<u32, Vec<SqliteBuild>>,
    processes: BTreeMap<u32, ProcessInfo>,
    /// What could not be seen, a sentence each.
    pub(super) unseen: Vec<String>,
}

impl Facts {
    pub(super) fn gather(named: &Path, options: Options) -> anyhow::Result<Self> {
        let (begin, time) = (Instant::now(), SystemTime::now());
        let deadline = begin + options.budget;
        let path = place_of(named)?;
        let database = observe(&path)?;
        let log = observe(&DatabaseFile::Log.path(&path))?;
        if database.is_none() && log.is_none() {
            anyhow::bail!("{}: there is no such file", path.display());
        }
        let described = match database {
            Some(file) => {
                let info = read_database(&file)?;
                Some((file, info))
            }
            None => None,
        };
        let mut facts = Facts {
            named: named.to_owned(),
            options,
            time,
            took: Duration::ZERO,
            database: described,
            log,
            samples: Vec::new(),
            side: [SideView::of(&path).ok().flatten(), None],
            builds: BTreeMap::new(),
            processes: BTreeMap::new(),
            unseen: Vec::new(),
            path,
        };
        facts.look(deadline)?;
        facts.side[1] = SideView::of(&facts.path).ok().flatten();
        facts.look_into_users(deadline);
        facts.took = begin.elapsed();
        Ok(facts)
    }

    /// Looks as often as it takes, the first time at all processes.
    fn look(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let first = OpenFiles::find(&self.path, self.options.budget / 2)?;
        self.add_unseen(&first.unseen);
        self.sample(first.files, deadline)?;
        let is_late = || Instant::now() + PAUSE >= deadline;
        while !is_late() && (self.samples.len() < LOOKS || self.should_look_on()) {
            std::thread::sleep(PAUSE);
            let open = self.open_again()?;
            self.sample(open, deadline)?;
        }
        Ok(())
    }

    /// True while `WRITE` is held by one process without a commit, until that is long.
    fn should_look_on(&self) -> bool {
        self.span() < LONG_WRITE && self.same_writer().is_some()
    }

    /// The process that has held `WRITE` in each look, while no commit was made.
    pub(super) fn same_writer(&self) -> Option<u32> {
        let writer = |sample: &Sample| {
            let byte = LockByte::Protocol(Lock::Write);
            let mut held = sample.census.held().filter(|lock| lock.byte == byte);
            held.find_map(|lock| lock.pid)
        };
        let first = self.samples.first()?;
        let (pid, header) = (writer(first)?, first.index.map(|index| index.header));
        let is_same = |sample: &Sample| {
            writer(sample) == Some(pid) && sample.index.map(|index| index.header) == header
        };
        self.samples.iter().all(is_same).then_some(pid)
    }

    fn open_again(&self) -> anyhow::Result<Vec<OpenFile>> {
        let mut files = Vec::new();
        for pid in self.users().into_iter().take(PEERS) {
            files.extend(OpenFiles::of_process(&self.path, pid, self.options.budget / 4)?.files);
        }
        Ok(files)
    }

    fn sample(&mut self, mut open: Vec<OpenFile>, deadline: Instant) -> anyhow::Result<()> {
        let own = std::process::id();
        open.retain(|open| open.pid != own);
        let left = deadline.saturating_duration_since(Instant::now());
        let census = match self.database {
            Some(_) => Census::take(&self.path, left / 4),
            None => Ok(Census::default()),
        };
        // It may have been removed since.
        let census = census.unwrap_or_default();
        let unseen = census.unseen.clone();
        self.add_unseen(&unseen);
        let shm = observe(&DatabaseFile::Index.path(&self.path))?;
        let index = || shm.as_ref().map(|shm| read_index(shm)).transpose();
        let before = index()?.flatten();
        let log = observe(&DatabaseFile::Log.path(&self.path))?;
        let log = log.map(|log| read_log(&log)).transpose()?;
        let is_settled = index()?.flatten().map(|index| index.header)
            == before.map(|index| index.header)
            && shm.is_none_or(|shm| shm.is_still_at_its_path().unwrap_or(false));
        self.samples.push(Sample {
            at: Instant::now(),
            open,
            census,
            index: before,
            log,
            is_settled,
        });
        Ok(())
    }

    fn add_unseen(&mut self, unseen: &[Unseen]) {
        for unseen in unseen {
            let unseen = unseen.to_string();
            if !self.unseen.contains(&unseen) {
                self.unseen.push(unseen);
            }
        }
    }

    fn look_into_users(&mut self, deadline: Instant) {
        let mut builds = Builds::default();
        let mut unread = 0_usize;
        for pid in self.users() {
            self.processes.insert(pid, ProcessInfo::of(pid));
            match builds.of_process(pid, deadline) {
                Some(found) => drop(self.builds.insert(pid, found)),
                None => unread += 1,
            }
        }
        if unread > 0 {
            self.unseen.push(format!(
                "the versions of SQLite in {unread} of the processes that use the database"
            ));
        }
    }

    /// The processes that have the database open, or hold locks on it.
    pub(super) fn users(&self) -> BTreeSet<u32> {
        let of = |sample: &Sample| -> Vec<u32> {
            let files = sample.open.iter().map(|open| open.pid);
            let locks = sample.census.locks.iter().filter_map(|lock| lock.pid);
            files.chain(locks).collect()
        };
        let own = std::process::id();
        let all = self.samples.iter().flat_map(of);
        all.filter(|pid| *pid != own).collect()
    }

    /// What is known of the process.
    pub(super) fn process(&self, pid: u32) -> ProcessInfo {
        let known = self.processes.get(&pid);
        known.cloned().unwrap_or_else(|| ProcessInfo::of(pid))
    }

    /// `process 12 (python3 app.py)`
    pub(super) fn name(&self, pid: u32) -> String {
        match self.process(pid).command {
            Some(command) => {
                let command = crate::output::escape_short(&command, 60);
                format!("process {pid} ({command})")
            }
            None => format!("process {pid}"),
        }
    }

    /// Several of them.
    pub(super) fn names(&self, pids: &[u32]) -> String {
        match pids {
            [] => "a process that is not known".to_owned(),
            pids => {
                let names: Vec<String> = pids.iter().map(|pid| self.name(*pid)).collect();
                names.join(", ")
            }
        }
    }

    pub(super) fn last(&self) -> Option<&Sample> {
        self.samples.last()
    }

    /// From the first look to the last one.
    pub(super) fn span(&self) -> Duration {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => Duration::ZERO,
        }
    }

    /// True if a look has seen a lock on the database or the index.
    pub(super) fn is_in_use(&self) -> bool {
        let holds = |sample: &Sample| sample.census.held().next().is_some();
        self.samples.iter().any(holds)
    }

    /// True if there were enough looks to tell what lasts from what passes.
    pub(super) fn has_looked_enough(&self) -> bool {
        self.samples.len() >= LOOKS / 2
    }

    /// The page size: as the index has it, the log, or the database file.
    pub(super) fn page_size(&self) -> Option<PageSize> {
        let last = self.last()?;
        let by_index = last.index.as_ref().and_then(IndexInfo::valid_header);
        let by_index = by_index.and_then(|header| header.page_size());
        let by_log = last.log.as_ref().and_then(LogInfo::valid_header);
        let by_file = self.database.as_ref();
        let by_file = by_file.and_then(|(_, info)| info.page_size());
        by_index
            .or(by_log.map(|header| header.page_size))
            .or(by_file)
    }

    /// How long the file of the log is.
    pub(super) fn log_len(&self) -> u64 {
        let last = self.last().and_then(|last| last.log);
        last.map_or(0, |log| log.len)
    }

    /// The directory of the database.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The processes that hold `byte` in the last look, and whether there are unknown ones.
    pub(super) fn holders(&self, byte: LockByte) -> (Vec<u32>, bool) {
        let locks = self.last().into_iter().flat_map(|last| last.census.held());
        let held: Vec<_> = locks.filter(|lock| lock.byte == byte).collect();
        let pids: BTreeSet<u32> = held.iter().filter_map(|lock| lock.pid).collect();
        let has_unknown = held.iter().any(|lock| lock.pid.is_none());
        (pids.into_iter().collect(), has_unknown)
    }

    /// How long ago the log was written last.
    pub(super) fn log_age(&self) -> Option<Duration> {
        let log = fs::metadata(DatabaseFile::Log.path(&self.path)).ok()?;
        SystemTime::now().duration_since(log.modified().ok()?).ok()
    }

    /// The length of the database file, by a new look.
    pub(super) fn database_len(&self) -> Option<u64> {
        self.database.as_ref()?.0.len().ok()
    }
}

/// The path without symbolic links. The file itself may be missing.
fn place_of(named: &Path) -> anyhow::Result<PathBuf> {
    if let Ok(path) = named.canonicalize() {
        return Ok(path);
    }
    let no_such = || format!("{}: cannot find the database", named.display());
    let name = named.file_name().with_context(no_such)?;
    let parent = named
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new(".")).canonicalize();
    Ok(parent.with_context(no_such)?.join(name))
}
