//! One process, or thread, as the supervisor sees it.
//!
//! A member that is killed keeps its place: the next process that is started
//! for it has the same role and number, and what the supervisor knows of it
//! goes on.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::assignment::{Assignment, Engine, Role};
use crate::ledger::Ledger;
use crate::pages::PageBank;
use crate::wire::{Order, Progress, Report};
use crate::worker;

/// What the bodies of members are.
pub(crate) enum Starter {
    /// Processes, which open the bank themselves.
    Processes,
    /// Threads, which share it.
    Threads(wal::inproc::Database),
}

/// What a member's pipe says; the number is its place in the supervisor's list.
pub(crate) enum Event {
    Report(usize, Report),
    /// Something that is no report.
    Garbled(usize, String),
    /// The pipe is closed: the process is dead, or all but.
    Ended(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Running,
    Killed,
    Stopping,
    Ended,
}

enum Body {
    Process(Child),
    Thread(JoinHandle<Result<()>>),
}

pub(crate) struct Member {
    pub(crate) assignment: Assignment,
    pub(crate) state: State,
    pub(crate) last_heard: Instant,
    /// Acknowledged transfers, for a writer.
    pub(crate) ledger: Ledger,
    /// Since when a writer at work has not committed.
    without_commit_since: Instant,
    pub(crate) longest_without_commit: Duration,
    /// The transfers of each writer that were acknowledged before this process
    /// was started, all of which it must see.
    pub(crate) acknowledged_at_start: Vec<i64>,
    pub(crate) restarts: u32,
    /// Of this process.
    pub(crate) progress: Progress,
    /// Of those before it.
    before: Progress,
    body: Option<Body>,
    orders: Option<Box<dyn Write + Send>>,
}

impl Member {
    pub(crate) fn new(assignment: Assignment) -> Self {
        Member {
            assignment,
            state: State::Ended,
            last_heard: Instant::now(),
            ledger: Ledger::default(),
            without_commit_since: Instant::now(),
            longest_without_commit: Duration::ZERO,
            acknowledged_at_start: Vec::new(),
            restarts: 0,
            progress: Progress::default(),
            before: Progress::default(),
            body: None,
            orders: None,
        }
    }

    pub(crate) fn role(&self) -> Role {
        self.assignment.role
    }

    pub(crate) fn engine(&self) -> Engine {
        self.assignment.engine
    }

    /// "writer 1", "stock writer 2", for messages and the table. There is one
    /// checkpointer.
    pub(crate) fn name(&self) -> String {
        let number = self.assignment.number;
        match (self.role(), self.engine()) {
            (Role::Checkpointer, _) => self.role().to_string(),
            (role, Engine::Ours) => format!("{role} {number}"),
            (role, Engine::Stock) => format!("stock {role} {number}"),
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match &self.body {
            Some(Body::Process(child)) => Some(child.id()),
            _ => None,
        }
    }

    /// "writer 2 (pid 4711)".
    pub(crate) fn name_and_pid(&self) -> String {
        match self.pid() {
            Some(pid) => format!("{} (pid {pid})", self.name()),
            None => self.name(),
        }
    }

    /// Commits, snapshots or checkpoints, by role. Of a process that was
    /// killed, those count of which it told; transfers are all told.
    pub(crate) fn done(&self) -> u64 {
        match self.role() {
            Role::Writer => self.ledger.transfers().cast_unsigned(),
            Role::Reader | Role::Checkpointer => self.before.done + self.progress.done,
        }
    }

    /// The time waited for Write in all, and the longest single wait.
    pub(crate) fn waits(&self) -> (Duration, Duration) {
        (
            self.before.waited + self.progress.waited,
            self.before.longest_wait.max(self.progress.longest_wait),
        )
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.before.refusals + self.progress.refusals
    }

    /// Lets a member work that has waited for the others.
    pub(crate) fn let_work(&mut self) -> Result<()> {
        self.order(Order::Start)?;
        self.state = State::Running;
        self.without_commit_since = Instant::now();
        Ok(())
    }

    /// Tells a member to end, unless it is dead or dying.
    pub(crate) fn let_end(&mut self) -> Result<()> {
        if matches!(self.state, State::Starting | State::Running) {
            self.note_time_without_commit();
            self.order(Order::Stop)?;
            self.state = State::Stopping;
        }
        Ok(())
    }

    /// Enters the acknowledgement of the transfer that was announced.
    pub(crate) fn acknowledge(&mut self, transfers: i64) -> Result<()> {
        self.note_time_without_commit();
        self.without_commit_since = Instant::now();
        self.ledger.acknowledge(transfers)
    }

    /// How long a writer has been at work since its last commit.
    pub(crate) fn without_commit(&self) -> Duration {
        if self.role() == Role::Writer && self.state == State::Running {
            self.without_commit_since.elapsed()
        } else {
            Duration::ZERO
        }
    }

    fn note_time_without_commit(&mut self) {
        self.longest_without_commit = self.longest_without_commit.max(self.without_commit());
    }

    /// Starts a process or thread; `place` is told with each event.
    pub(crate) fn start(
        &mut self,
        starter: &Starter,
        place: usize,
        events: &SyncSender<Event>,
    ) -> Result<()> {
        self.before.done += self.progress.done;
        (self.before.waited, self.before.longest_wait) = self.waits();
        self.before.refusals = self.refusals();
        self.progress = Progress {
            transfers_seen: self.progress.transfers_seen,
            log: self.progress.log,
            ..Progress::default()
        };
        match starter {
            Starter::Processes => self.start_process(place, events)?,
            Starter::Threads(database) => self.start_thread(database.clone(), place, events)?,
        }
        self.state = State::Starting;
        self.last_heard = Instant::now();
        Ok(())
    }

    fn start_process(&mut self, place: usize, events: &SyncSender<Event>) -> Result<()> {
        let mut command = Command::new(env::current_exe()?);
        command
            .arg("work")
            .arg(serde_json::to_string(&self.assignment)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("starting a process")?;
        let reports = child.stdout.take().context("no pipe from the process")?;
        let orders = child.stdin.take().context("no pipe to the process")?;
        self.orders = Some(Box::new(orders));
        self.body = Some(Body::Process(child));
        listen(reports, place, events.clone());
        Ok(())
    }

    fn start_thread(
        &mut self,
        database: wal::inproc::Database,
        place: usize,
        events: &SyncSender<Event>,
    ) -> Result<()> {
        let (orders, give_orders) = io::pipe()?;
        let (take_reports, reports) = io::pipe()?;
        let assignment = self.assignment.clone();
        let thread = thread::Builder::new().name(self.name()).spawn(move || {
            let open = || Ok(Box::new(PageBank::new(database.clone())?) as _);
            worker::serve(&assignment, open, BufReader::new(orders), reports)
        })?;
        self.orders = Some(Box::new(give_orders));
        self.body = Some(Body::Thread(thread));
        listen(take_reports, place, events.clone());
        Ok(())
    }

    /// Gives an order. A member that is dead does not get it, and its pipe says
    /// that it is dead.
    pub(crate) fn order(&mut self, order: Order) -> Result<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        if let Some(orders) = &mut self.orders {
            let _ = orders.write_all(&line);
        }
        Ok(())
    }

    /// Sends SIGKILL, which the process cannot see coming.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.note_time_without_commit();
        self.state = State::Killed;
        self.last_heard = Instant::now();
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let Some(Body::Process(child)) = &self.body else {
            return Ok(());
        };
        // The process was not waited for, so its id is not another's.
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)
            .with_context(|| format!("sending {signal} to {}", self.name_and_pid()))
    }

    /// Takes leave of a member whose pipe is closed, within `patience`. Refused
    /// if it did not end as it had to: by the kill, or by itself without an
    /// error.
    pub(crate) fn bury(&mut self, patience: Duration) -> Result<()> {
        let name = self.name_and_pid();
        self.orders = None;
        match self.body.take() {
            Some(Body::Process(mut child)) => {
                let status = wait(&mut child, Instant::now() + patience)
                    .with_context(|| format!("waiting for the end of {name}"))?;
                ensure!(
                    self.ended_rightly(status),
                    "{name} ended by itself: {status}"
                );
            }
            Some(Body::Thread(thread)) => {
                let ended = thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("{name} panicked"))?;
                ended?;
                ensure!(self.state == State::Stopping, "{name} ended by itself");
            }
            None => {}
        }
        Ok(())
    }

    fn ended_rightly(&self, status: ExitStatus) -> bool {
        use std::os::unix::process::ExitStatusExt;
        match self.state {
            State::Killed => status.signal() == Some(Signal::SIGKILL as i32),
            State::Stopping => status.success(),
            State::Starting | State::Running | State::Ended => false,
        }
    }
}

impl Drop for Member {
    /// A process does not outlive its supervisor. Threads end when they see
    /// that their orders do.
    fn drop(&mut self) {
        if let Some(Body::Process(child)) = &mut self.body {
            let _ = child.kill();
            let _ = wait(child, Instant::now() + Duration::from_secs(1));
        }
    }
}

/// Waits for a process that is as good as dead. The system tells nobody but
/// the parent, and not with a bound, so this looks every millisecond.
fn wait(child: &mut Child, deadline: Instant) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "it does not end");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Turns the lines of a pipe into events, on a thread of its own that ends
/// with the pipe or with the supervisor.
fn listen(reports: impl Read + Send + 'static, place: usize, events: SyncSender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(reports).lines() {
            let event = match line {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(report) => Event::Report(place, report),
                    Err(_) => Event::Garbled(place, line),
                },
                Err(error) => Event::Garbled(place, error.to_string()),
            };
            if events.send(event).is_err() {
                return;
            }
        }
        // Fails only if the supervisor has gone.
        let _ = events.send(Event::Ended(place));
    });
}
