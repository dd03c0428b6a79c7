//! All checks, in their order, and what a recovery would give.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use wal_core::index::IndexHeader;
use wal_core::inspect::{
    CommittedPages, Content, DatabaseInfo, IndexInfo, LogCheck, Watch, read_database,
};
use wal_core::storage::{File, MemoryFile};
use wal_core::{Error, PageSize};

use super::{CheckReport, RecoveryFigures, VerifyReport, check_database};
use crate::files::Files;
use crate::output::Output;
use crate::output::units::counted;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It is as it should be.
    #[default]
    Ok,
    /// It is unusual, and harmless.
    Note,
    /// Data are lost, or what is read may be wrong.
    Damage,
}

/// The checks, in their order.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) list: Vec<CheckReport>,
    pub(crate) recovery: RecoveryFigures,
}

impl Checks {
    /// Checks `files` in the state that they had when `watch` began.
    pub(super) fn of(files: &Files, watch: &Watch<'_>, output: &Output) -> anyhow::Result<Self> {
        let mut checks = Checks::default();
        let info = read_database(&files.database)?;
        let log = match files.check_log(output) {
            Err(error) if is_unknown_version(&error) => {
                let advice = "use a newer version of walctl";
                checks.damage("log", format!("{error:#}"), advice);
                None
            }
            log => log?,
        };
        // Users of the index go by what it publishes; without any, the next one rebuilds it.
        let is_rebuilt = !files.index_is_in_use()?;
        let published = watch.published().filter(|_| !is_rebuilt);
        let log = log.map(|log| without_unpublished(log, published));
        checks.check_log(files, log.as_ref(), watch)?;
        if let (Some(log), true) = (&log, is_rebuilt) {
            checks.check_origin(files, &log.scan)?;
        }
        checks.check_journal(&files.path);
        let frames = watch.published().map_or(0, IndexHeader::max_frame);
        let in_log = log.as_ref().map_or(0, |log| log.scan.max_frame());
        let index = files.copy_index(frames.min(in_log))?;
        checks.check_index(index.as_ref().zip(watch.index()), log.as_ref(), is_rebuilt);
        if index.is_none() && log.is_some() && files.are_in_use()? {
            let text = "there is none, and a process uses the database: it owns the whole of it \
                (`locking_mode=EXCLUSIVE`), and what it writes now is not told from damage";
            checks.note("index", text);
        }
        let no_log = MemoryFile::new(&files.path, Vec::new());
        let log_file = files.log.as_ref().map_or(&no_log as &dyn File, |log| log);
        let state = committed(&files.database, log_file, &info, log.as_ref(), published)?;
        checks.set_recovery(log.as_ref(), &info, watch.published());
        if let Some(state) = &state {
            check_database(state, files.database.len()?, &mut checks)?;
        } else {
            check_unknown(&info, &mut checks);
        }
        checks.add_recovery(watch.index());
        Ok(checks)
    }

    pub(crate) fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, State::Ok, text.into(), None);
    }

    pub(crate) fn note(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, State::Note, text.into(), None);
    }

    pub(crate) fn damage(&mut self, check: &'static str, text: impl Into<String>, advice: &str) {
        self.add(check, State::Damage, text.into(), Some(advice.to_owned()));
    }

    fn add(&mut self, check: &'static str, state: State, text: String, advice: Option<String>) {
        self.list.push(CheckReport {
            check,
            state,
            text,
            advice,
        });
    }

    /// The worst of their states.
    pub(crate) fn state(&self) -> State {
        let states = self.list.iter().map(|check| check.state);
        states.max().unwrap_or_default()
    }

    pub(super) fn report(self, path: &Path) -> VerifyReport {
        VerifyReport {
            path: path.display().to_string(),
            state: self.state(),
            checks: self.list,
            recovery: self.recovery,
        }
    }

    fn set_recovery(
        &mut self,
        log: Option<&LogCheck>,
        info: &DatabaseInfo,
        published: Option<&IndexHeader>,
    ) {
        let in_file = pages_in_file(info);
        self.recovery.pages = in_file;
        if let Some(log) = log {
            let scan = &log.scan;
            self.recovery = RecoveryFigures {
                frames: scan.max_frame(),
                commits: log.commits.len() as u64,
                pages: match scan.max_frame() {
                    0 => in_file,
                    _ => Some(scan.page_count),
                },
                generation: Some(format!("{:?}", scan.header.salts)),
                dropped_frames: log.leftovers.frames + u64::from(scan.uncommitted),
                lost_commits: log.leftovers.lost_commits,
                equals_index: None,
            };
        }
        self.recovery.equals_index = published.map(|header| equals(header, log));
    }

    fn add_recovery(&mut self, index: Option<&IndexInfo>) {
        let text = self.recovery.text();
        let frames = self.recovery.frames;
        let Some(index) = index.filter(|index| index.max_frame() > frames) else {
            return self.ok("recovery", text);
        };
        let text = format!("{text} ({})", counted(index.max_frame(), "frame"));
        match (frames, index.backfilled() == index.max_frame()) {
            (0, true) => {
                let text = format!("{text}; all of them are in the database file");
                self.ok("recovery", text);
            }
            (_, true) => {
                let text = format!(
                    "{text}; all of them are in the database file, over which it lays older pages"
                );
                let advice = "do not open the database: `walctl recover` gives the newest state";
                self.damage("recovery", text, advice);
            }
            (_, false) => {
                let advice = "the commits that are missing are lost unless a process still has \
                    their log open";
                self.damage("recovery", text, advice);
            }
        }
    }
}

/// The check of a log that is in use. What lies behind the published frames is being written, and
/// was read at different moments: it is neither damaged nor lost.
fn without_unpublished(mut log: LogCheck, published: Option<&IndexHeader>) -> LogCheck {
    let is_published = published.is_some_and(|header| {
        let is_of_log = header.salts() == log.scan.header.salts;
        is_of_log && header.max_frame() <= log.scan.max_frame() || header.max_frame() == 0
    });
    if is_published {
        log.leftovers.lost_commits = 0;
    }
    log
}

/// Whether a recovery gives the state that `header` publishes, or a later one.
fn equals(header: &IndexHeader, log: Option<&LogCheck>) -> bool {
    match (header.max_frame(), log) {
        // All frames of the older generation are in the database file.
        (0, _) => true,
        (_, None) => false,
        (frames, Some(log)) => {
            let commit = log.commit_at(frames);
            header.salts() == log.scan.header.salts
                && commit.is_some_and(|commit| commit.checksum == header.frame_checksum())
        }
    }
}

/// The size of the database by its file.
pub(crate) fn pages_in_file(info: &DatabaseInfo) -> Option<u32> {
    let by_header = match &info.content {
        Content::Sqlite(header) => header.page_count,
        _ => None,
    };
    let page_size = u64::from(info.page_size()?.bytes());
    by_header.or_else(|| u32::try_from(info.len / page_size).ok())
}

/// The state that users of the database see: what `published` says, or a recovery gives. `None`
/// if no file names the page size.
fn committed<'a>(
    database: &'a dyn File,
    log_file: &'a dyn File,
    info: &DatabaseInfo,
    log: Option<&LogCheck>,
    published: Option<&IndexHeader>,
) -> anyhow::Result<Option<CommittedPages<'a>>> {
    let frames = match (published, log) {
        (Some(header), Some(_)) if header.max_frame() == 0 => 0,
        (Some(header), Some(log)) if header.salts() == log.scan.header.salts => {
            header.max_frame().min(log.scan.max_frame())
        }
        (_, log) => log.map_or(0, |log| log.scan.max_frame()),
    };
    let by_log = log.filter(|_| frames > 0);
    let by_log = by_log.and_then(|log| Some((log, log.commit_at(frames)?)));
    let state: Option<(PageSize, u32, &[u32])> = match by_log {
        Some((log, commit)) => {
            let pages = &log.scan.pages[..frames as usize];
            Some((log.scan.header.page_size, commit.page_count, pages))
        }
        None => info
            .page_size()
            .zip(pages_in_file(info))
            .map(|(size, count)| (size, count, &[][..])),
    };
    Ok(state.map(|(page_size, page_count, frames)| {
        CommittedPages::new(database, log_file, page_size, page_count, frames)
    }))
}

/// A database whose page size is not known.
fn check_unknown(info: &DatabaseInfo, checks: &mut Checks) {
    let advice = "restore a backup; of an encrypted database only its own program can tell";
    match &info.content {
        Content::Empty => checks.ok("page 1", "the database is empty"),
        Content::UnknownStoreVersion(version) => {
            let text = format!("it is of a page store of version {version}, which is not known");
            checks.damage("page 1", text, "use a newer version of walctl");
        }
        Content::DamagedStore => checks.damage("page 1", "it is a damaged page store", advice),
        _ => {
            let text = "it is neither of a SQLite database nor of a page store";
            checks.damage("page 1", text, advice);
        }
    }
}

fn is_unknown_version(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::CannotOpen { .. })
    )
}
