//! Which frames of the log are taken.
//!
//! The valid prefix of the log is what a recovery takes. Where it is shorter than what the
//! index publishes, the database file may have pages of the frames that are lost: a checkpoint
//! has moved them. The state of a prefix laid over those mixes commits. If a checkpoint has moved
//! all frames, the database file alone is the newest state, and the log is left out.

use wal_core::inspect::{IndexInfo, LogCheck};

use crate::output::units::counted;

/// What is taken of a log.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The frames that are taken.
    pub(super) frames: u32,
    /// Whether a process may be writing behind those.
    pub(super) is_live: bool,
    /// Whether the database file has pages of later frames.
    pub(super) is_mixed: bool,
    /// What is worth knowing, a sentence each.
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// What is taken of the log that `check` is of, beside `index`. `is_live` if a process has
    /// the files open.
    pub(super) fn of(check: Option<&LogCheck>, index: Option<&IndexInfo>, is_live: bool) -> Self {
        let found = check.map_or(0, |check| check.scan.max_frame());
        let mut plan = Plan {
            frames: found,
            ..Plan::default()
        };
        let is_of_log = |info: &&IndexInfo| {
            let salts = info.valid_header().map(|header| header.salts());
            check.is_none_or(|check| salts == Some(check.scan.header.salts))
        };
        let index = index.filter(is_of_log);
        let published = index.map_or(0, IndexInfo::max_frame);
        if published <= found {
            plan.is_live = is_live && published > 0;
            if plan.is_live {
                plan.frames = published;
            }
        } else if let Some(index) = index {
            plan.add_lost(index, found);
        }
        if let Some(check) = check.filter(|check| check.loses_commits() && !plan.is_live)
            && let Some((frame, fault)) = check.fault
        {
            let lost = counted(check.leftovers.lost_commits, "commit");
            let text =
                format!("frame {frame} of the log: {fault}; {lost} behind it cannot be used");
            plan.notes.push(text);
        }
        plan
    }

    /// The log has `found` frames of those that `index` publishes.
    fn add_lost(&mut self, index: &IndexInfo, found: u32) {
        let moved = index.backfilled();
        let published = counted(index.max_frame(), "frame");
        let text = format!("the index publishes {published}, of which the log has {found}");
        self.notes.push(text);
        if moved == index.max_frame() {
            self.frames = 0;
            let text = "a checkpoint has moved all of them: the database file alone is the newest \
                state, and the log is left out";
            self.notes.push(text.to_owned());
        } else if moved > found {
            self.is_mixed = true;
            let moved = counted(moved, "frame");
            let text = format!(
                "a checkpoint has moved {moved}: the database file has pages of later commits, so \
                 the new file mixes commits"
            );
            self.notes.push(text);
        }
    }
}
