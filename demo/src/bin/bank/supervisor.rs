//! Starts the processes, keeps the ledgers, kills and restarts, and stops.
//!
//! Everything happens on one thread, which takes one event at a time. Whoever
//! is silent for longer than the patience is an error, and so no wait is
//! without bound: not the one for the barrier at the beginning, not the one
//! for the last process at the end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use demo::bank::Journal;

use crate::arguments::{Arguments, BackendName};
use crate::assignment::{Role, Setup};
use crate::member::{Event, Member, Starter, State};
use crate::sabotage;
use crate::story::{Kills, Story};
use crate::table::{Overview, Table};
use crate::wire::{JournalLine, Progress, Report};

/// How often the table is drawn and the silent are looked for.
const TICK: Duration = Duration::from_millis(100);
/// How long the processes work before a sabotage, in a run that is not shorter.
const SABOTAGE_AFTER: Duration = Duration::from_millis(500);
/// Events that may wait for the supervisor; then the members wait.
const QUEUE: usize = 4096;

/// Which part of the run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Until all are ready.
    Gathering,
    Working,
    Stopping,
}

struct Supervisor<'a> {
    arguments: &'a Arguments,
    setup: &'a Setup,
    starter: Starter,
    members: Vec<Member>,
    ready: usize,
    phase: Phase,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    rng: fastrand::Rng,
    kills: Kills,
    kill_due: Option<Instant>,
    sabotage_due: Option<Instant>,
    started: Instant,
    tick_due: Instant,
    table: Table,
}

/// Runs the members for the time that was asked for.
pub(crate) fn run(arguments: &Arguments, setup: &Setup) -> Result<Story> {
    let starter = match arguments.backend {
        BackendName::Shm => Starter::Processes,
        BackendName::Inproc => Starter::Threads(setup.options().open_inproc(&setup.path)?),
    };
    let mut supervisor = Supervisor::new(arguments, setup, starter);
    let worked = supervisor.run();
    supervisor.table.finish()?;
    let kills = supervisor.kills;
    let story = Story::new(arguments.backend, worked?, kills, &supervisor.members);
    if let Starter::Threads(database) = supervisor.starter {
        database.close().context("closing the bank")?;
    }
    Ok(story)
}

impl<'a> Supervisor<'a> {
    fn new(arguments: &'a Arguments, setup: &'a Setup, starter: Starter) -> Self {
        let (sender, events) = sync_channel(QUEUE);
        let now = Instant::now();
        let members = arguments.cast(setup).into_iter().map(Member::new).collect();
        Supervisor {
            arguments,
            setup,
            starter,
            members,
            ready: 0,
            phase: Phase::Gathering,
            events,
            sender,
            rng: fastrand::Rng::with_seed(setup.seed),
            kills: Kills::default(),
            kill_due: None,
            sabotage_due: None,
            started: now,
            tick_due: now,
            table: Table::new(arguments.seconds),
        }
    }

    /// Gives the time from the start order to the stop order.
    fn run(&mut self) -> Result<Duration> {
        for place in 0..self.members.len() {
            self.start(place)?;
        }
        self.pump(|all| all.ready == all.members.len())?;
        self.begin_work()?;
        let deadline = self.started + self.arguments.seconds;
        self.pump(|_| Instant::now() >= deadline)?;
        let worked = self.started.elapsed();
        self.phase = Phase::Stopping;
        self.kill_due = None;
        self.sabotage_due = None;
        for member in &mut self.members {
            member.let_end()?;
        }
        self.pump(|all| all.members.iter().all(|one| one.state == State::Ended))?;
        Ok(worked)
    }

    fn begin_work(&mut self) -> Result<()> {
        self.phase = Phase::Working;
        self.started = Instant::now();
        let kill_every = self.arguments.kill_every;
        if matches!(self.starter, Starter::Processes) && !kill_every.is_zero() {
            self.kill_due = Some(self.started + kill_every);
        }
        self.sabotage_due = self
            .arguments
            .sabotage
            .map(|_| self.started + (self.arguments.seconds / 2).min(SABOTAGE_AFTER));
        for member in &mut self.members {
            member.let_work()?;
        }
        Ok(())
    }

    fn start(&mut self, place: usize) -> Result<()> {
        let acknowledged = self.writers().map(|one| one.ledger.transfers()).collect();
        let member = &mut self.members[place];
        member.acknowledged_at_start = acknowledged;
        member.start(&self.starter, place, &self.sender)
    }

    fn writers(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.role() == Role::Writer)
    }

    /// Takes events until `done`.
    fn pump(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        while !done(self) {
            let due = self
                .kill_due
                .map_or(self.tick_due, |due| due.min(self.tick_due));
            let wait = due.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(wait) {
                Ok(event) => self.take(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the supervisor lost its queue"),
            }
            let now = Instant::now();
            self.kill_if_due(now)?;
            if now >= self.tick_due {
                self.tick(now)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Report(place, report) => {
                let member = &mut self.members[place];
                member.last_heard = Instant::now();
                self.take_report(place, report)
                    .with_context(|| self.members[place].name_and_pid())
            }
            Event::Garbled(place, line) => {
                bail!("{} said: {line}", self.members[place].name_and_pid())
            }
            Event::Ended(place) => self.take_end(place),
        }
    }

    fn take_report(&mut self, place: usize, report: Report) -> Result<()> {
        let member = &mut self.members[place];
        match report {
            Report::Ready { journal } => self.take_ready(place, &journal),
            Report::Announce(transfer) => member.ledger.announce(transfer),
            Report::Acknowledge { transfers } => member.acknowledge(transfers),
            Report::Progress(progress) => take_progress(member, progress),
            Report::Failed { reason } => bail!(reason),
            // Whether it may end is seen when it has.
            Report::Finished => Ok(()),
        }
    }

    /// A member that has just started sees every transfer that was acknowledged
    /// before, and a writer that was killed goes on from its journal row.
    fn take_ready(&mut self, place: usize, journal: &[JournalLine]) -> Result<()> {
        let member = &mut self.members[place];
        let found: Vec<Journal> = journal.iter().map(|line| (*line).into()).collect();
        ensure!(
            found.len() == member.acknowledged_at_start.len(),
            "it found a journal of {} rows",
            found.len()
        );
        for (worker, (found, acknowledged)) in
            found.iter().zip(&member.acknowledged_at_start).enumerate()
        {
            ensure!(
                found.transfers >= *acknowledged,
                "it was started after {acknowledged} transfers of writer {worker} were \
                 acknowledged, and found {}",
                found.transfers
            );
        }
        if member.role() == Role::Writer {
            let row = found.get(member.assignment.number as usize);
            let row = row.context("it found no row of its own")?;
            self.kills.count(member.ledger.settle(*row)?);
        }
        match (self.phase, member.state) {
            (Phase::Gathering, _) => self.ready += 1,
            (Phase::Working, State::Starting) => member.let_work()?,
            // It was killed since, or told to stop.
            _ => {}
        }
        Ok(())
    }

    fn take_end(&mut self, place: usize) -> Result<()> {
        let killed = self.members[place].state == State::Killed;
        self.members[place].bury(self.setup.patience)?;
        if killed && self.phase == Phase::Working {
            self.members[place].restarts += 1;
            return self.start(place);
        }
        self.members[place].state = State::Ended;
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Result<()> {
        self.tick_due = now + TICK;
        self.look_for_the_silent()?;
        self.sabotage_if_due(now)?;
        self.table.draw(&self.members, &self.overview())
    }

    fn look_for_the_silent(&self) -> Result<()> {
        let patience = self.setup.patience;
        for member in &self.members {
            if member.state != State::Ended && member.last_heard.elapsed() > patience {
                bail!(
                    "{} hangs: it has said nothing for {:.1} s while {}",
                    member.name_and_pid(),
                    patience.as_secs_f64(),
                    match member.state {
                        State::Starting if self.phase == Phase::Gathering => "the others started",
                        State::Starting => "starting",
                        State::Running => "working",
                        State::Killed => "dying of SIGKILL",
                        State::Stopping | State::Ended => "stopping",
                    }
                );
            }
        }
        Ok(())
    }

    fn kill_if_due(&mut self, now: Instant) -> Result<()> {
        let Some(due) = self.kill_due.filter(|due| *due <= now) else {
            return Ok(());
        };
        // If it came late, the next one does not come the sooner.
        self.kill_due = Some((due + self.arguments.kill_every).max(now));
        let alive = self.alive();
        if let Some(place) = self.rng.choice(alive) {
            self.members[place].kill()?;
            self.kills.all += 1;
        }
        Ok(())
    }

    /// Whoever can be killed; those who are just opening the bank too.
    fn alive(&self) -> Vec<usize> {
        (0..self.members.len())
            .filter(|place| matches!(self.members[*place].state, State::Starting | State::Running))
            .collect()
    }

    fn sabotage_if_due(&mut self, now: Instant) -> Result<()> {
        if self.sabotage_due.is_some_and(|due| due <= now) {
            self.sabotage_due = None;
            if let Some(kind) = self.arguments.sabotage {
                sabotage::meanwhile(kind, &self.setup.path, &self.members)?;
            }
        }
        Ok(())
    }

    fn overview(&self) -> Overview {
        Overview {
            phase: match self.phase {
                Phase::Gathering => "starting",
                Phase::Working => "working",
                Phase::Stopping => "stopping",
            },
            elapsed: match self.phase {
                Phase::Gathering => Duration::ZERO,
                _ => self.started.elapsed(),
            },
            kills: self.kills.all,
        }
    }
}

/// What a reader saw last does not go back, not over a kill either.
fn take_progress(member: &mut Member, progress: Progress) -> Result<()> {
    if let (Some(before), Some(now)) = (member.progress.transfers_seen, progress.transfers_seen) {
        ensure!(
            now >= before,
            "it saw {now} transfers after it had seen {before}"
        );
    }
    member.progress = Progress {
        transfers_seen: progress.transfers_seen.or(member.progress.transfers_seen),
        log: progress.log.or(member.progress.log),
        ..progress
    };
    Ok(())
}
