//! What `walctl keep` prints.

use std::io::{self, Write};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::checkpoint::HeldBackFigures;
use crate::output::units::{bytes, count, duration};
use crate::output::{DIM, Report, STRONG, WARN, escape, paint};

/// Something that happened to a database that is kept short.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct KeepEvent {
    /// The path of the database.
    pub(super) path: String,
    /// When it happened, RFC 3339.
    pub(super) time: String,
    /// What happened: `watching`, `waiting`, `restarted`, `held back`, `failed` or `stopped`.
    pub(super) event: &'static str,
    /// Why it waits or failed; null for other events.
    pub(super) reason: Option<String>,
    /// The length of the log file in bytes.
    pub(super) log_bytes: u64,
    /// The longest time for which writers waited at once since the last event, in seconds.
    pub(super) writers_held_up_s: f64,
    /// What keeps the log from being restarted; null for other events.
    pub(super) held_back_by: Option<HeldBackFigures>,
    /// What was done since it began.
    pub(super) totals: KeepTotals,
}

/// What `walctl keep` has done to a database since it began.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct KeepTotals {
    /// The checkpoints that ran.
    pub(super) checkpoints: u64,
    /// The frames that they copied.
    pub(super) frames: u64,
    /// How often the log was restarted.
    pub(super) restarts: u64,
    /// How often something kept the log from being restarted.
    pub(super) held_back: u64,
    /// The longest time for which writers waited at once, in seconds.
    pub(super) longest_block_s: f64,
}

impl Report for KeepEvent {
    const KIND: &'static str = "keep";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let what = match self.event {
            "held back" | "failed" => paint(WARN, self.event),
            event => paint(STRONG, event),
        };
        let time = paint(DIM, &self.time);
        write!(out, "{time} {} {what}", escape(&self.path))?;
        let held_up = duration(Duration::from_secs_f64(self.writers_held_up_s));
        match (self.event, &self.held_back_by, &self.reason) {
            ("restarted", ..) => write!(
                out,
                " the log of {}; writers waited for {held_up} at most",
                bytes(self.log_bytes)
            )?,
            (_, Some(held_back), _) => {
                write!(
                    out,
                    " by {held_back}; the log has {}",
                    bytes(self.log_bytes)
                )?;
            }
            (_, _, Some(reason)) => write!(out, ": {}", escape(reason))?,
            ("stopped", ..) => write!(
                out,
                " after {} restarts; {} frames copied, writers waited for {} at most",
                count(self.totals.restarts),
                count(self.totals.frames),
                duration(Duration::from_secs_f64(self.totals.longest_block_s)),
            )?,
            _ => write!(out, " a log of {}", bytes(self.log_bytes))?,
        }
        writeln!(out)
    }
}
