//! The checks of the log and of what lies behind it.

use std::path::Path;

use wal_core::format::LogScan;
use wal_core::index::IndexHeader;
use wal_core::inspect::{LogCheck, Watch, why_log_does_not_follow};
use wal_core::storage::{File as _, beside};

use super::Checks;
use crate::files::Files;
use crate::look::observe;
use crate::output::units::{bytes, counted};

impl Checks {
    pub(super) fn check_log(
        &mut self,
        files: &Files,
        log: Option<&LogCheck>,
        watch: &Watch<'_>,
    ) -> anyhow::Result<()> {
        let Some(file) = &files.log else {
            self.ok("log", "there is none: all commits are in the database file");
            return Ok(());
        };
        let len = file.len()?;
        let Some(log) = log else {
            if self.list.is_empty() {
                self.check_bad_header(len, watch.published());
            }
            return Ok(());
        };
        let frames = counted(log.scan.max_frame(), "frame");
        let commits = counted(log.commits.len() as u64, "commit");
        let sound = match log.scan.max_frame() {
            0 => "no commit is in it".to_owned(),
            _ => format!("{frames} with {commits}; each checksum is right"),
        };
        match (log.fault, log.loses_commits()) {
            (Some((frame, fault)), true) => {
                let lost = counted(log.leftovers.lost_commits, "commit");
                let text = format!("frame {frame}: {fault}; a recovery drops {lost} behind it");
                let advice = "copy all files before the database is opened again; `walctl \
                    recover` gives the state before the damage, a backup may have more";
                self.damage("log", text, advice);
            }
            _ => self.ok("log", sound),
        }
        if let Some(frame) = log.first_frame_beyond_size() {
            let text = format!(
                "frame {frame} holds a page beyond the end of the database: a large transaction \
                 that made the database shorter leaves that"
            );
            self.note("log", text);
        }
        self.check_leftovers(log);
        Ok(())
    }

    /// A log without a valid header, which is `len` bytes long.
    fn check_bad_header(&mut self, len: u64, published: Option<&IndexHeader>) {
        let frames = published.map_or(0, IndexHeader::max_frame);
        if len <= 32 && frames == 0 {
            self.ok("log", "it is empty");
            return;
        }
        let text = format!(
            "its header is damaged: a recovery takes it for empty, and ignores all of its {}",
            bytes(len)
        );
        let advice = match frames {
            0 => "if the database lacks commits, restore a backup",
            _ => "do not end the processes that use it: copy the database with `walctl backup`",
        };
        self.damage("log", text, advice);
    }

    /// Whether the log can be that of the database. Users of an index know whose log it is.
    pub(super) fn check_origin(&mut self, files: &Files, scan: &LogScan) -> anyhow::Result<()> {
        let Some(log) = &files.log else {
            return Ok(());
        };
        if let Some(reason) = why_log_does_not_follow(&files.database, log, scan)? {
            let text = format!("it does not seem to follow from the database: {reason}");
            let advice = "if the database alone was restored, move the log away before it is \
                opened; else restore both from one backup";
            self.damage("log", text, advice);
        }
        Ok(())
    }

    /// A rollback journal whose header is not cleared is rolled back by the next user.
    pub(super) fn check_journal(&mut self, database: &Path) {
        let journal = beside(database, "-journal");
        let first_byte = observe(&journal).ok().flatten().and_then(|journal| {
            let mut byte = [0];
            journal
                .read_at(&mut byte, 0)
                .ok()
                .filter(|read| *read == 1)?;
            Some(byte[0])
        });
        if first_byte.is_some_and(|byte| byte != 0) {
            let text = format!(
                "{} has unfinished work: stock SQLite rolls it back when it opens the database",
                journal.display()
            );
            self.note("journal", text);
        }
    }

    fn check_leftovers(&mut self, log: &LogCheck) {
        let left = &log.leftovers;
        let mut parts = Vec::new();
        if log.scan.uncommitted > 0 {
            let frames = counted(log.scan.uncommitted, "frame");
            parts.push(format!("{frames} of a transaction without a commit"));
        }
        for generation in &left.generations {
            let frames = counted(generation.frames, "frame");
            parts.push(match generation.restarts {
                Some(1) => format!("{frames} of the generation before"),
                Some(restarts) => format!("{frames} of {restarts} generations ago"),
                None => format!("{frames} of another generation"),
            });
        }
        let others: u64 = left.generations.iter().map(|of| of.frames).sum();
        let here = left.frames.saturating_sub(others);
        if here > 0 && left.lost_commits == 0 {
            let frames = counted(here, "frame");
            parts.push(format!("{frames} being written"));
        }
        if left.trailing_bytes > 0 {
            parts.push(format!("{} bytes of a frame", left.trailing_bytes));
        }
        match parts.is_empty() {
            true => self.ok("leftovers", "there are none"),
            false => {
                let all = parts.join(", ");
                self.ok(
                    "leftovers",
                    format!("{all}: harmless, the next commits replace them"),
                );
            }
        }
    }
}
