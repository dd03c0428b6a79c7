//! Writes the newest committed state to a new file.

use std::io::IoSlice;

use anyhow::{Context as _, bail};
use wal_core::format::{DatabaseHeader, LOG_HEADER_LEN};
use wal_core::inspect::{
    CommittedPages, LogCheck, PageSource, Watch, read_database, why_log_does_not_follow,
};
use wal_core::storage::{File, FileSyncType, MemoryFile, NewFile, OsFile};
use wal_core::{PageNo, PageSize};

use super::plan::Plan;
use super::{Recover, RecoverReport};
use crate::commands::verify::{Checks, State, check_database, pages_in_file};
use crate::files::Files;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::output::units::{bytes, counted};

/// The bytes that one write takes.
const RUN_LEN: usize = 1 << 20;

/// A recovery of `files`.
pub(super) struct Job<'a> {
    pub(super) recover: &'a Recover,
    pub(super) files: &'a Files,
    pub(super) output: &'a Output,
    pub(super) interrupt: Interrupt,
}

impl Job<'_> {
    /// Writes the state to a new file, which has no name yet, and checks that.
    pub(super) fn copy(&self, watch: &Watch<'_>) -> anyhow::Result<(NewFile, RecoverReport)> {
        let files = self.files;
        let check = files.check_log(self.output)?;
        let plan = Plan::of(
            check.as_ref(),
            watch.index(),
            self.recover.from_pid.is_some(),
        );
        let (frames, mut notes) = (plan.frames, plan.notes);
        if let (None, Some(log)) = (&check, &files.log)
            && log.len()? > LOG_HEADER_LEN as u64
        {
            let len = bytes(log.len()?);
            notes.push(format!(
                "the header of the log is damaged, so its {len} were not read"
            ));
        }
        let foreign = self.why_foreign(check.as_ref())?;
        if let Some(reason) = foreign {
            let text = format!("the log does not seem to follow from the database: {reason}");
            notes.push(text);
        }
        let no_log = MemoryFile::new(&files.path, Vec::new());
        let log = files.log.as_ref().map_or(&no_log as &dyn File, |log| log);
        let pages = self.state(log, check.as_ref(), frames, &mut notes)?;
        let (wanted, available) = (pages.page_count(), pages.available()?);
        let pages = pages.with_page_count(available);
        let new = NewFile::beside(&self.recover.to, Some(&files.database))?;
        let mut copied = self.write(&pages, new.file()?)?;
        copied.missing += wanted - available;
        let mut checks = Checks::default();
        let len = new.file()?.len()?;
        let alone = CommittedPages::new(
            new.file()?,
            &no_log,
            pages.page_size(),
            pages.page_count(),
            &[],
        );
        check_database(&alone, len, &mut checks)?;
        if copied.missing > 0 {
            let missing = counted(copied.missing, "page");
            notes.push(format!("{missing} of the database: in neither file"));
        }
        let is_sound = checks.state() != State::Damage && copied.missing == 0;
        let commits = check.as_ref().map_or(0, |check| {
            check
                .commits
                .iter()
                .filter(|commit| commit.frame <= frames)
                .count() as u64
        });
        let left = check.as_ref().map(|check| &check.leftovers);
        // A process that writes behind the published frames loses nothing.
        let lost = left
            .filter(|_| !plan.is_live)
            .map_or(0, |left| left.lost_commits);
        let scanned = check.as_ref().map_or(0, |check| {
            u64::from(check.scan.max_frame() - frames) + u64::from(check.scan.uncommitted)
        });
        let report = RecoverReport {
            database: files.database.path().display().to_string(),
            log: files
                .log
                .as_ref()
                .map(|log| log.path().display().to_string()),
            to: self.recover.to.display().to_string(),
            bytes: len,
            pages: pages.page_count(),
            pages_from_log: copied.from_log,
            missing_pages: copied.missing,
            frames,
            commits,
            dropped_frames: scanned + left.map_or(0, |left| left.frames),
            lost_commits: lost,
            notes,
            is_consistent: is_sound && !plan.is_mixed && foreign.is_none(),
            checks: checks.list,
        };
        Ok((new, report))
    }

    /// Why the log seems to be that of another database. A process that has both open knows
    /// better, and a page 1 of another page size is compared by [`Job::check_page_size`].
    fn why_foreign(&self, check: Option<&LogCheck>) -> anyhow::Result<Option<&'static str>> {
        let (Some(check), Some(log), None) = (check, &self.files.log, self.recover.from_pid) else {
            return Ok(None);
        };
        let database = &self.files.database;
        let by_file = read_database(database)?.page_size();
        if by_file != Some(check.scan.header.page_size) {
            return Ok(None);
        }
        Ok(why_log_does_not_follow(database, log, &check.scan)?)
    }

    /// The state after the first `frames` frames of the log.
    fn state<'p>(
        &'p self,
        log: &'p dyn File,
        check: Option<&LogCheck>,
        frames: u32,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<CommittedPages<'p>> {
        let database: &dyn File = &self.files.database;
        let info = read_database(database)?;
        let by_file = info.page_size();
        let commit = check.and_then(|check| Some((check, check.commit_at(frames)?)));
        let Some((check, commit)) = commit else {
            let known = by_file.zip(pages_in_file(&info));
            let (size, count) = known.with_context(|| {
                let path = self.files.path.display();
                format!(
                    "{path}: its first page is damaged and the log has no commit, so nothing \
                     tells its page size; restore a backup"
                )
            })?;
            return Ok(CommittedPages::new(database, log, size, count, &[]));
        };
        let size = check.scan.header.page_size;
        let in_log = &check.scan.pages[..frames as usize];
        let pages = CommittedPages::new(database, log, size, commit.page_count, in_log);
        if by_file.is_some_and(|by_file| by_file != size) {
            self.check_page_size(&pages, size, notes)?;
        } else if by_file.is_none() && info.len > 0 {
            notes.push("page 1 of the database file is damaged".to_owned());
        }
        Ok(pages)
    }

    /// The page 1 in the database file names another page size than the log: it is damaged, if
    /// the log has a page 1 of its own page size; else the log is that of another database.
    fn check_page_size(
        &self,
        pages: &CommittedPages<'_>,
        size: PageSize,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let mut page_one = vec![0; size.len()];
        let source = pages.read(PageNo::ONE, &mut page_one)?;
        let header = DatabaseHeader::decode(&page_one);
        let is_sound = header.is_some_and(|header| header.page_size().ok() == Some(size));
        if matches!(source, PageSource::Log(_)) && is_sound {
            notes.push("page 1 of the database file names another page size".to_owned());
            return Ok(());
        }
        bail!(
            "{}: its page size is not {size}, as in the log: the log is that of another \
             database; name the right one with --log, or restore a backup",
            self.files.path.display()
        )
    }

    /// Writes all pages to `new`, durably.
    fn write(&self, pages: &CommittedPages<'_>, new: &OsFile) -> anyhow::Result<Copied> {
        let size = pages.page_size();
        let total = pages.page_count();
        let len = u64::from(total) * u64::from(size.bytes());
        if new.free_space().is_some_and(|free| free < len) {
            let to = self.recover.to.display();
            bail!("{to}: its file system has no room for {}", bytes(len));
        }
        new.set_len(len)?;
        let mut progress = self.output.progress("writing the new file", len);
        let mut copied = Copied::default();
        let mut run = vec![0; RUN_LEN];
        let mut next = 1;
        while next <= total {
            if self.interrupt.is_set() {
                bail!("interrupted; no file is left");
            }
            let first = PageNo::new(next)?;
            let (mut used, mut is_hole) = (0, true);
            for page in run.chunks_exact_mut(size.len()) {
                if next > total {
                    break;
                }
                let number = PageNo::new(next)?;
                let source = pages.read(number, page)?;
                is_hole &= source == PageSource::Missing;
                copied.add(number, size, source);
                used += page.len();
                next += 1;
            }
            if !is_hole {
                new.write_all_at(&mut [IoSlice::new(&run[..used])], first.offset(size))?;
            }
            progress.set(first.offset(size) + used as u64, len);
        }
        new.sync(FileSyncType::Full)?;
        Ok(copied)
    }
}

/// Where the pages of the new file are from.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    from_log: u32,
    missing: u32,
}

impl Copied {
    fn add(&mut self, page: PageNo, size: PageSize, source: PageSource) {
        match source {
            PageSource::Log(_) => self.from_log += 1,
            // That of the lock bytes holds no data.
            PageSource::Missing if page != size.lock_byte_page() => self.missing += 1,
            _ => {}
        }
    }
}
