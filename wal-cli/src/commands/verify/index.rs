//! The checks of the index against the log.

use wal_core::index::IndexHeader;
use wal_core::inspect::{HeaderState, IndexCopy, IndexFault, IndexInfo, LogCheck};

use super::Checks;
use crate::output::units::counted;

impl Checks {
    pub(super) fn check_index(
        &mut self,
        index: Option<(&IndexCopy, &IndexInfo)>,
        log: Option<&LogCheck>,
        is_rebuilt: bool,
    ) {
        let Some((index, info)) = index else {
            self.ok(
                "index",
                "there is none: the next user builds it from the log",
            );
            return;
        };
        let rebuilds = "the next user rebuilds it from the log";
        match info.header {
            HeaderState::Valid(header) => {
                let is_moved = info.backfilled() == info.max_frame();
                self.check_valid_index(index, &header, log, (is_rebuilt, is_moved));
            }
            HeaderState::NeverWritten => self.ok("index", format!("it is empty: {rebuilds}")),
            HeaderState::CopiesDiffer => {
                let text = "the copies of its header differ: its writer died between them";
                self.note("index", format!("{text}; {rebuilds}"));
            }
            HeaderState::Damaged if is_rebuilt => {
                let text = "the checksum of its header is wrong";
                self.note("index", format!("{text}; {rebuilds}"));
            }
            HeaderState::UnknownVersion(version) => {
                let text = format!("its version {version} is not known");
                self.damage("index", text, "use a newer version of walctl");
            }
            _ => {
                let text = format!("the checksum of its header is wrong; {rebuilds}");
                let advice = "find out which program wrote to -shm: `walctl doctor`";
                self.damage("index", text, advice);
            }
        }
    }

    fn check_valid_index(
        &mut self,
        index: &IndexCopy,
        header: &IndexHeader,
        log: Option<&LogCheck>,
        (is_rebuilt, is_moved): (bool, bool),
    ) {
        let frames = header.max_frame();
        if frames == 0 {
            let text = "both copies of its header are sound; all commits are in the database file";
            self.ok("index", text);
            return;
        }
        let Some(log) = log else {
            let text = format!(
                "it publishes {}, and there is no log that has them",
                counted(frames, "frame")
            );
            match is_rebuilt && is_moved {
                true => self.note("index", format!("{text}; they are in the database file")),
                false => {
                    let advice = "find a process that has the log open (`walctl doctor`), and \
                        take it from there: `walctl recover --from-pid`";
                    self.damage("index", text, advice);
                }
            }
            return;
        };
        let faults = index.compare(header, log);
        let Some(first) = faults.first.first() else {
            let frames = counted(frames, "frame");
            let text = format!("both copies of its header are sound; readers find {frames}");
            self.ok("index", text);
            return;
        };
        let more = match faults.count - 1 {
            0 => String::new(),
            more => format!(" (and {})", counted(more, "more fault")),
        };
        let text = format!("{first}{more}");
        match first {
            IndexFault::Generation { .. } if is_rebuilt => {
                self.note(
                    "index",
                    format!("{text}; no process uses it, so the next user rebuilds it"),
                );
            }
            IndexFault::CommitLost { .. } | IndexFault::OtherCommit { .. } => {
                let advice = "copy all files before the database is opened again; then see what \
                    `walctl recover` gives";
                self.damage("index", text, advice);
            }
            _ if is_rebuilt => {
                self.note(
                    "index",
                    format!("{text}; no process uses it, so the next user rebuilds it"),
                );
            }
            _ => {
                let advice = "end all processes that use the database: the next user rebuilds \
                    the index from the log";
                self.damage("index", text, advice);
            }
        }
    }
}
