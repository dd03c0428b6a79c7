//! Runs one cell: the worker stops, stock SQLite acts, the worker goes on or is
//! killed, and the database is looked at.

use std::collections::BTreeMap;
use std::fmt;

use integration::stock::{SqlError, StockKind, StockSqlite};
use integration::worker::{Command, Refusal, RefusalKind, Worker};
use rusqlite::types::Value;

use super::operations::Operation;
use crate::{Ours, Scene, WAIT, values};

/// What stock SQLite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Select,
    Update,
    Checkpoint(&'static str),
    Close,
}

impl Action {
    pub(crate) const ALL: [Self; 7] = [
        Self::Select,
        Self::Update,
        Self::Checkpoint("PASSIVE"),
        Self::Checkpoint("FULL"),
        Self::Checkpoint("RESTART"),
        Self::Checkpoint("TRUNCATE"),
        Self::Close,
    ];
}

/// What becomes of the worker that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    GoesOn,
    Killed,
}

/// Whose peer acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: StockKind,
    /// Whether it was attached all the time; it opens the database while the
    /// worker is stopped otherwise.
    pub(crate) attached: bool,
}

/// One race.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) point: String,
    pub(crate) pass: u32,
    pub(crate) action: Action,
    pub(crate) end: End,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell {
            point,
            pass,
            action,
            end,
        } = self;
        write!(
            f,
            "pass {pass} of `{point}`, stock: {action:?}, then {end:?}"
        )
    }
}

/// What an operation does when nobody stops it.
pub(crate) struct Recorded {
    /// The points that it passes, each with the number of the pass.
    pub(crate) stops: Vec<(String, u32)>,
    before: State,
    after: State,
}

/// One state of the database, as stock SQLite reads it and as ours does.
struct State {
    blob: Value,
    count: i64,
    sequence: u64,
}

struct Prepared {
    scene: Scene,
    worker: Worker,
    stock: Option<StockSqlite>,
}

impl Prepared {
    fn new(operation: &Operation, peer: Peer) -> Self {
        let scene = Scene::new(operation.start);
        let stock = peer.attached.then(|| {
            let mut stock = scene.stock(peer.kind);
            values(&mut stock).unwrap();
            stock
        });
        let mut worker = Worker::spawn().unwrap();
        (operation.prepare)(&scene, &mut worker);
        Prepared {
            scene,
            worker,
            stock,
        }
    }
}

impl Recorded {
    pub(crate) fn new(operation: &Operation, peer: Peer) -> Self {
        let before = State::of(&Prepared::new(operation, peer).scene);
        let mut prepared = Prepared::new(operation, peer);
        let Prepared { scene, worker, .. } = &mut prepared;
        worker.run(Command::Record).unwrap();
        worker.run((operation.command)(scene)).unwrap();
        let passed: Vec<String> = worker.ask(Command::Passed).unwrap();
        let mut passes: BTreeMap<String, u32> = BTreeMap::new();
        let numbered = passed.into_iter().map(|point| {
            let pass = passes.entry(point.clone()).or_insert(0);
            *pass += 1;
            (point, *pass)
        });
        Recorded {
            stops: numbered.collect(),
            before,
            after: State::of(&prepared.scene),
        }
    }

    /// True if `blob` is that of after the operation, false for before;
    /// `None` if they are the same.
    fn is_after(&self, blob: &Value) -> Option<bool> {
        let (before, after) = (*blob == self.before.blob, *blob == self.after.blob);
        assert!(before || after, "a blob of neither before nor after");
        (before != after).then_some(after)
    }
}

impl State {
    fn of(scene: &Scene) -> Self {
        let mut stock = scene.stock(StockKind::Bundled);
        let ours = Ours::open(&scene.path).unwrap();
        State {
            blob: blob(&mut stock).unwrap(),
            count: values(&mut stock).unwrap(),
            sequence: ours.image().unwrap().sequence(),
        }
    }
}

fn blob(stock: &mut StockSqlite) -> Result<Value, SqlError> {
    let rows = stock.run("SELECT a FROM b").unwrap()?;
    Ok(rows.value().unwrap().clone())
}

/// Whether the snapshot that stock SQLite saw was of after the operation,
/// where that can be told.
pub(crate) fn run_cell(
    operation: &Operation,
    peer: Peer,
    recorded: &Recorded,
    cell: &Cell,
) -> Option<bool> {
    let Prepared {
        scene,
        mut worker,
        mut stock,
    } = Prepared::new(operation, peer);
    worker.stop_at(&cell.point, cell.pass).unwrap();
    worker.send(&(operation.command)(&scene)).unwrap();
    worker.wait_stopped(WAIT).unwrap();

    let killed = cell.end == End::Killed;
    if killed {
        worker.kill().unwrap();
    }
    let waits = !killed && scene.stock_reader_waits();
    let mut acting = stock.take().unwrap_or_else(|| scene.stock(peer.kind));
    let acted = if waits {
        Acted::default()
    } else {
        act(&mut acting, cell.action)
    };
    assert!(!killed || !acted.busy, "a dead process is in the way");
    if cell.action == Action::Close {
        acting.close().unwrap();
    } else {
        stock = Some(acting);
    }
    let done = (!killed).then(|| go_on(worker));

    let after = acted.blob.and_then(|blob| recorded.is_after(&blob));
    let stock = stock.unwrap_or_else(|| scene.stock(peer.kind));
    let (count, image) = scene.expect_sound(stock, Ours::open(&scene.path).unwrap());
    let expected = recorded.before.count + i64::from(acted.updated);
    assert_eq!(count, expected, "commits of stock SQLite");
    let sequence = image.sequence();
    match done {
        Some(true) => assert_eq!(sequence, recorded.after.sequence),
        Some(false) => assert_eq!(sequence, recorded.before.sequence),
        None if after == Some(true) => assert_eq!(sequence, recorded.after.sequence),
        None => {
            assert!([recorded.before.sequence, recorded.after.sequence].contains(&sequence));
        }
    }
    after
}

/// What came of an action.
#[derive(Default)]
struct Acted {
    /// What was seen first, if it came to that.
    blob: Option<Value>,
    updated: bool,
    busy: bool,
}

fn act(stock: &mut StockSqlite, action: Action) -> Acted {
    let mut acted = Acted::default();
    match blob(stock) {
        Ok(blob) => acted.blob = Some(blob),
        Err(error) => {
            acted.busy = expect_busy(&error);
            return acted;
        }
    }
    match action {
        Action::Select | Action::Close => {}
        Action::Update => match stock.run("UPDATE t SET n=n+1").unwrap() {
            Ok(_) => acted.updated = true,
            Err(error) => acted.busy = expect_busy(&error),
        },
        Action::Checkpoint(mode) => {
            match stock
                .run(&format!("PRAGMA wal_checkpoint({mode})"))
                .unwrap()
            {
                Ok(rows) => acted.busy = rows.0[0][0] == Value::Integer(1),
                Err(error) => acted.busy = expect_busy(&error),
            }
        }
    }
    acted
}

fn expect_busy(error: &SqlError) -> bool {
    assert!(error.is_busy(), "{error}");
    true
}

/// Lets the worker finish what it was told, and end. True if it did, false if
/// it was busy.
fn go_on(mut worker: Worker) -> bool {
    worker.go().unwrap();
    let done = match worker.finish::<serde_json::Value>(WAIT) {
        Ok(_) => true,
        Err(error) => {
            let refusal: &Refusal = error.downcast_ref().unwrap();
            let busy = matches!(refusal.kind, RefusalKind::Busy | RefusalKind::Locked);
            assert!(busy, "{refusal}");
            false
        }
    };
    worker.end().unwrap();
    done
}
