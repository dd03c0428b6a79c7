//! One process of ours after the other, each told what to do by a thread of
//! the test.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use integration::worker::{
    Checkpoint, Command, Load, LoadReport, Refusal, RefusalKind, Role, Settings, Stamp,
    Synchronous, Worker,
};

use crate::count::Count;
use crate::scene::{Ledger, Scene, Seen, choose};

/// How long one of ours waits for its turn to write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
const SNAPSHOT: &str = "held";

#[derive(Debug, Clone, Copy)]
enum Act {
    Commit,
    BigCommit,
    RollBack,
    Look,
    HoldSnapshot,
    Checkpoint,
    WriteForAWhile,
    ReadForAWhile,
    CloseAndOpen,
    Kill,
    KillInCommit,
    KillInBigCommit,
    KillInCheckpoint,
    KillWhileWriting,
}

const ACTS: [(u32, Act); 14] = [
    (30, Act::Commit),
    (8, Act::BigCommit),
    (5, Act::RollBack),
    (10, Act::Look),
    (6, Act::HoldSnapshot),
    (8, Act::Checkpoint),
    (8, Act::WriteForAWhile),
    (5, Act::ReadForAWhile),
    (5, Act::CloseAndOpen),
    (1, Act::Kill),
    (4, Act::KillInCommit),
    (2, Act::KillInBigCommit),
    (2, Act::KillInCheckpoint),
    (2, Act::KillWhileWriting),
];

pub(crate) struct Ours<'scene> {
    scene: &'scene Scene,
    number: u32,
    rng: Rng,
    ledger: Ledger,
    count: Count,
    worker: Worker,
    /// What this place saw last, in whichever process.
    seen: Option<Seen>,
    /// The stamps of the snapshot that is held.
    held: Option<Vec<Option<Stamp>>>,
}

/// Lets processes of ours act `acts` times in all; what they know then.
pub(crate) fn act(scene: &Scene, number: u32, seed: u64, acts: u32) -> Result<(Ledger, Count)> {
    let mut rng = Rng::with_seed(seed);
    let mut ours = Ours {
        worker: open(scene, &mut rng)?,
        scene,
        number,
        rng,
        ledger: scene.ours[number as usize],
        count: Count::default(),
        seen: None,
        held: None,
    };
    for _ in 0..acts {
        let act = choose(&mut ours.rng, &ACTS);
        ours.act(act)
            .with_context(|| format!("{act:?} by process {number} of ours, {}", ours.worker))?;
    }
    if ours.rng.bool() {
        ours.worker.end()?;
    } else {
        ours.worker.kill()?;
    }
    Ok((ours.ledger, ours.count))
}

fn open(scene: &Scene, rng: &mut Rng) -> Result<Worker> {
    let mut settings = Settings::new(&scene.path);
    settings.synchronous = choose(
        rng,
        &[
            (2, Synchronous::Off),
            (2, Synchronous::Normal),
            (3, Synchronous::Full),
        ],
    );
    settings.group_commit = rng.bool();
    settings.classic_locks = rng.bool();
    settings.pread = rng.bool();
    settings.side_file = rng.u8(..4) != 0;
    settings.auto_checkpoint = choose(rng, &[(1, 0), (1, 50), (1, 1000)]);
    settings.read_lock_delay = Duration::from_millis(choose(rng, &[(1, 0), (1, 1), (1, 100)]));
    settings.busy_timeout = BUSY_TIMEOUT;
    Worker::open(&settings)
}

impl Ours<'_> {
    fn act(&mut self, act: Act) -> Result<()> {
        match act {
            Act::Commit => self.commit(false),
            Act::BigCommit => self.commit(true),
            Act::RollBack => self.roll_back(),
            Act::Look => self.look(),
            Act::HoldSnapshot => self.hold_or_let_go(),
            Act::Checkpoint => self.checkpoint(),
            Act::WriteForAWhile => self.write_for_a_while(),
            Act::ReadForAWhile => self.read_for_a_while(),
            Act::CloseAndOpen => self.close_and_open(),
            Act::Kill => self.kill(),
            Act::KillInCommit => self.kill_in_commit(false),
            Act::KillInBigCommit => self.kill_in_commit(true),
            Act::KillInCheckpoint => {
                let checkpoint = Command::Checkpoint(self.mode());
                self.kill_in(&[checkpoint])
            }
            Act::KillWhileWriting => {
                let load = self.load(Role::Writer { id: 1 }, Duration::from_secs(1));
                self.kill_in(&[Command::Load(load)])
            }
        }
    }

    /// The commands of the next transaction. All processes share the bulk, and
    /// the stamp tells them apart.
    fn transaction(&self, big: bool) -> [Command; 3] {
        let stamp = Stamp {
            writer: u64::from(self.number) + 1,
            sequence: self.ledger.next(),
        };
        let ranges = self.scene.ranges();
        let own = ranges.own(self.number);
        // The bulk lies behind the pages of the last process.
        let pages = if big { ranges.bulk() } else { own.clone() };
        [
            Command::BeginWrite,
            Command::Write { pages: own, stamp },
            Command::Write { pages, stamp },
        ]
    }

    fn commit(&mut self, big: bool) -> Result<()> {
        let [begin, own, bulk] = self.transaction(big);
        if is_busy(self.worker.run(begin))? {
            self.count.busy += 1;
            return Ok(());
        }
        self.worker.run(own)?;
        self.worker.run(bulk)?;
        self.worker.run(Command::Commit)?;
        self.ledger.acknowledge();
        self.count.ours += 1;
        Ok(())
    }

    fn roll_back(&mut self) -> Result<()> {
        let [begin, own, bulk] = self.transaction(true);
        if is_busy(self.worker.run(begin))? {
            self.count.busy += 1;
            return Ok(());
        }
        self.worker.run(own)?;
        self.worker.run(bulk)?;
        self.worker.run(Command::Rollback)
    }

    /// The newest snapshot has all that this place knows of.
    fn look(&mut self) -> Result<()> {
        let shared = self.scene.shared();
        let ranges = self.scene.ranges();
        let seen = ranges.judge(&self.worker.newest_stamps(ranges.all())?)?;
        ensure!(
            seen.shared >= shared,
            "{shared} commits to the shared pages were acknowledged: {seen:?}"
        );
        self.ledger.settle(seen.own[self.number as usize])?;
        if let Some(earlier) = &self.seen {
            seen.ensure_not_before(earlier)?;
        }
        self.seen = Some(seen);
        Ok(())
    }

    /// A snapshot that was held while others went on has not changed.
    fn hold_or_let_go(&mut self) -> Result<()> {
        let pages = self.scene.ranges().all();
        match self.held.take() {
            None => {
                self.worker.begin_read(SNAPSHOT)?;
                self.held = Some(self.worker.stamps(SNAPSHOT, pages)?);
            }
            Some(held) => {
                let now = self.worker.stamps(SNAPSHOT, pages)?;
                ensure!(now == held, "a snapshot changed: {held:?}, then {now:?}");
                self.worker.end_read(SNAPSHOT)?;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<()> {
        let checkpoint = Command::Checkpoint(self.mode());
        if !is_busy(self.worker.run(checkpoint))? {
            self.count.checkpoints += 1;
        }
        Ok(())
    }

    fn mode(&mut self) -> Checkpoint {
        let modes = [
            (3, Checkpoint::Passive),
            (1, Checkpoint::Full),
            (1, Checkpoint::Restart),
            (2, Checkpoint::Truncate),
        ];
        choose(&mut self.rng, &modes)
    }

    fn load(&mut self, role: Role, duration: Duration) -> Load {
        Load {
            threads: self.rng.u64(1..4),
            role,
            pages: self.scene.ranges().shared(),
            seed: self.rng.u64(..),
            duration,
        }
    }

    fn write_for_a_while(&mut self) -> Result<()> {
        let id = u64::from(self.number) + 1;
        let role = match self.rng.bool() {
            true => Role::Writer { id },
            false => Role::BusyWriter { id },
        };
        let duration = Duration::from_millis(self.rng.u64(5..30));
        let load = self.load(role, duration);
        let report: LoadReport = self.worker.ask(Command::Load(load))?;
        self.scene.shared.fetch_add(report.rounds, Ordering::SeqCst);
        self.count.ours += report.rounds;
        Ok(())
    }

    fn read_for_a_while(&mut self) -> Result<()> {
        let duration = Duration::from_millis(self.rng.u64(5..30));
        let load = self.load(Role::Reader, duration);
        self.worker.run(Command::Load(load))
    }

    fn close_and_open(&mut self) -> Result<()> {
        self.worker.run(Command::Close)?;
        self.restart()
    }

    fn kill(&mut self) -> Result<()> {
        self.worker.kill()?;
        self.count.kills += 1;
        self.restart()
    }

    fn kill_in_commit(&mut self, big: bool) -> Result<()> {
        let [begin, own, bulk] = self.transaction(big);
        self.ledger.doubt();
        self.kill_in(&[begin, own, bulk, Command::Commit])
    }

    /// Kills the process at any moment of `commands`, or soon after.
    fn kill_in(&mut self, commands: &[Command]) -> Result<()> {
        for command in commands {
            self.worker.send(command)?;
        }
        // The moment is what the seed chooses; there is nothing to wait for.
        thread::sleep(Duration::from_micros(self.rng.u64(..3000)));
        self.kill()
    }

    /// A new process finds what those before it were told.
    fn restart(&mut self) -> Result<()> {
        self.held = None;
        self.worker = open(self.scene, &mut self.rng)?;
        self.look()
    }
}

/// Whether the command was refused because others are at work.
fn is_busy(outcome: Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(false),
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if refusal.kind == RefusalKind::Busy => Ok(true),
            _ => Err(error),
        },
    }
}
