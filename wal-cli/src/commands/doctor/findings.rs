//! What was found, and the report.

use std::collections::BTreeMap;
use std::io::{self, Write};

use schemars::JsonSchema;
use serde::Serialize;

use super::facts::Facts;
use crate::commands::processes;
use crate::exit::Exit;
use crate::figures::ProcessFigures;
use crate::output::units::{self, counted, duration};
use crate::output::{BAD, DIM, GOOD, Report, STRONG, WARN, escape, paint};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// For information: nothing has to be done.
    Note,
    /// It needs attention.
    Warning,
    /// It can lose data, or has.
    Danger,
}

/// What was found.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) severity: Severity,
    /// The name of its kind, which stays the same: `lost-locks`, `deleted-log`.
    pub(super) name: &'static str,
    /// What was found, a sentence.
    pub(super) what: String,
    /// Why it matters.
    pub(super) why: &'static str,
    /// What to do about it.
    pub(super) advice: String,
    /// The processes that it is about.
    pub(super) pids: Vec<u32>,
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    /// Whether there is one of that kind about the process.
    pub(super) fn accuse(&self, name: &str, pid: u32) -> bool {
        let mut of_kind = self.0.iter().filter(|finding| finding.name == name);
        of_kind.any(|finding| finding.pids.contains(&pid))
    }

    /// Whether there is one of that kind.
    pub(super) fn have(&self, name: &str) -> bool {
        self.0.iter().any(|finding| finding.name == name)
    }

    pub(super) fn into_report(mut self, facts: &Facts, checks: usize) -> DoctorReport {
        self.0
            .sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let pids = self.0.iter().flat_map(|finding| &finding.pids);
        let processes: BTreeMap<u32, ProcessFigures> = pids
            .map(|pid| (*pid, ProcessFigures::of(&facts.process(*pid))))
            .collect();
        let worst = self.0.iter().map(|finding| finding.severity).max();
        DoctorReport {
            path: facts.path.display().to_string(),
            time: units::time(facts.time),
            verdict: match worst {
                None | Some(Severity::Note) => "healthy",
                Some(Severity::Warning) => "warning",
                Some(Severity::Danger) => "danger",
            },
            findings: self.0,
            processes: processes.into_values().collect(),
            checks,
            users: facts.users().len(),
            looks: facts.samples.len(),
            took_s: facts.took.as_secs_f64(),
            unseen: facts.unseen.clone(),
        }
    }
}

/// What is wrong with a database and its users.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct DoctorReport {
    /// The path of the database, without symbolic links.
    path: String,
    /// When the look began, RFC 3339.
    time: String,
    /// `healthy`, `warning` or `danger`: the worst of the findings. Notes are healthy.
    verdict: &'static str,
    /// What was found, the worst first.
    findings: Vec<Finding>,
    /// The processes that the findings are about.
    processes: Vec<ProcessFigures>,
    /// How many checks were made.
    checks: usize,
    /// How many processes that use the database were seen.
    users: usize,
    /// How often it looked at the locks and the index.
    looks: usize,
    /// How long it looked, in seconds.
    took_s: f64,
    /// What could not be seen, a sentence each; empty if nothing is missing.
    unseen: Vec<String>,
}

impl DoctorReport {
    pub(super) fn exit(&self) -> Exit {
        match self.findings.iter().map(|finding| finding.severity).max() {
            None | Some(Severity::Note) => Exit::Done,
            Some(Severity::Warning) => Exit::Warning,
            Some(Severity::Danger) => Exit::Damage,
        }
    }
}

impl Report for DoctorReport {
    const KIND: &'static str = "doctor";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", paint(STRONG, escape(&self.path)))?;
        if self.verdict == "healthy" {
            let notes = match self.findings.is_empty() {
                true => "healthy: nothing was found",
                false => "healthy: there are notes only",
            };
            writeln!(out, "  {}", paint(GOOD, notes))?;
        }
        for finding in &self.findings {
            let severity = match finding.severity {
                Severity::Note => paint(DIM, "note   "),
                Severity::Warning => paint(WARN, "warning"),
                Severity::Danger => paint(BAD, "danger "),
            };
            let name = paint(STRONG, finding.name);
            writeln!(out, "\n{severity} {name}: {}", escape(&finding.what))?;
            let why = paint(DIM, "because");
            writeln!(out, "        {why} {}", escape(finding.why))?;
            let advice = paint(DIM, "do");
            writeln!(out, "        {advice} {}", escape(&finding.advice))?;
        }
        processes::write(&self.processes, out)?;
        let users = match self.users {
            0 => "no process that uses it".to_owned(),
            1 => "1 process that uses it".to_owned(),
            users => format!("{users} processes that use it"),
        };
        let took = duration(std::time::Duration::from_millis(
            std::time::Duration::from_secs_f64(self.took_s)
                .as_millis()
                .try_into()
                .unwrap_or(0),
        ));
        let looks = counted(self.looks as u64, "look");
        writeln!(
            out,
            "\n{} {} checks, {users}, {looks} in {took}",
            paint(DIM, "checked:"),
            self.checks
        )?;
        for unseen in &self.unseen {
            writeln!(out, "{} {unseen}", paint(WARN, "not seen:"))?;
        }
        Ok(())
    }
}
