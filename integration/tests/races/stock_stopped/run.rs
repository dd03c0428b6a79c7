//! Runs one cell: the peer stops, ours acts, the peer goes on or is killed,
//! and the database is looked at.

use std::fmt;

use integration::stock::{Control, Rows, SqlError, StockKind, StockSqlite};
use wal::Error;

use super::operations::{Act, Beside, Operation, SELECT};
use super::points::{Stop, stops};
use crate::{Action, Image, Ours, Outcome, Scene, WAIT, values};

/// What becomes of the peer that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    GoesOn,
    Killed,
}

/// One race.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) stop: Stop,
    pub(crate) action: Action,
    pub(crate) end: End,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { stop, action, end } = self;
        let Stop { point, pass } = stop;
        write!(
            f,
            "pass {pass} of `{point}`, ours: {action:?}, then {end:?}"
        )
    }
}

/// What an operation does when nobody stops it.
pub(crate) struct Recorded {
    pub(crate) stops: Vec<Stop>,
    before: State,
    /// `None` where the operation leaves WAL mode.
    after: Option<State>,
}

/// One state of the database.
struct State {
    image: Image,
    count: i64,
    /// What a reader of stock SQLite gets.
    rows: Rows,
}

/// A peer that is ready for the operation, and who is beside it.
struct Prepared {
    scene: Scene,
    control: Control,
    peer: StockSqlite,
    keeper: Option<StockSqlite>,
    ours: Option<Ours>,
}

impl Prepared {
    fn new(operation: &Operation, kind: StockKind, beside: Beside, control: Control) -> Self {
        let scene = Scene::new(operation.start);
        let keeper = (beside == Beside::Stock).then(|| scene.keeper());
        let ours = (beside == Beside::Ours).then(|| Ours::open(&scene.path).unwrap());
        if let Some(ours) = &ours {
            ours.image().unwrap();
        }
        let mut peer = StockSqlite::spawn(kind, &scene.path, Some(&control)).unwrap();
        if let Some(sql) = operation.prepare {
            peer.run(sql).unwrap().unwrap();
        }
        if operation.damaged {
            scene.damage_index();
        }
        Prepared {
            scene,
            control,
            peer,
            keeper,
            ours,
        }
    }

    fn begin(&mut self, act: Act) {
        match act {
            Act::Sql(sql) => self.peer.send(sql).unwrap(),
            Act::Close => self.peer.hang_up(),
        }
    }
}

fn rows(scene: &Scene) -> Rows {
    let mut stock = scene.stock(StockKind::Bundled);
    stock.run(SELECT).unwrap().unwrap()
}

/// Waits for the end of what the peer was told; `None` for the peer if that
/// was to close.
fn finish(act: Act, mut peer: StockSqlite) -> (Option<StockSqlite>, Result<Rows, SqlError>) {
    match act {
        Act::Sql(_) => {
            let result = peer.finish(WAIT).unwrap();
            (Some(peer), result)
        }
        Act::Close => {
            peer.close().unwrap();
            (None, Ok(Rows::default()))
        }
    }
}

impl Recorded {
    pub(crate) fn new(operation: &Operation, kind: StockKind, beside: Beside) -> Self {
        let control = Control::new().unwrap();
        let prepared = Prepared::new(operation, kind, beside, control);
        let before = State::of(&prepared.scene, prepared.ours.as_ref());
        drop(prepared);

        let control = Control::with_trace().unwrap();
        let mut prepared = Prepared::new(operation, kind, beside, control);
        let earlier = prepared.control.trace().unwrap().len();
        prepared.begin(operation.act);
        let (_peer, result) = finish(operation.act, prepared.peer);
        let trace = prepared.control.trace().unwrap();
        let left_wal = operation.leaves_wal && result.is_ok();
        assert!(result.is_ok() || operation.leaves_wal, "{result:?}");
        // No snapshot of ours ever sees a database in rollback mode.
        let after = (!left_wal).then(|| State::of(&prepared.scene, prepared.ours.as_ref()));
        Recorded {
            stops: stops(&trace[earlier..]),
            before,
            after,
        }
    }

    /// True if `image` is that of after the operation, false for before;
    /// `None` if they are the same.
    fn is_after(&self, image: &Image) -> Option<bool> {
        let after = self.after().image == *image;
        let before = self.before.image == *image;
        assert!(after || before, "pages of neither before nor after");
        (after != before).then_some(after)
    }

    fn after(&self) -> &State {
        self.after.as_ref().unwrap_or(&self.before)
    }
}

impl State {
    fn of(scene: &Scene, ours: Option<&Ours>) -> Self {
        let image = match ours {
            Some(ours) => ours.image(),
            None => Ours::open(&scene.path).unwrap().image(),
        };
        State {
            image: image.unwrap(),
            count: values(&mut scene.stock(StockKind::Bundled)).unwrap(),
            rows: rows(scene),
        }
    }
}

/// Whether the snapshot that ours saw was of after the operation, where that
/// can be told.
pub(crate) fn run_cell(
    operation: &Operation,
    kind: StockKind,
    beside: Beside,
    recorded: &Recorded,
    cell: &Cell,
) -> Option<bool> {
    let control = Control::new().unwrap();
    let mut prepared = Prepared::new(operation, kind, beside, control);
    let stop = &cell.stop;
    prepared.control.arm(&stop.point, stop.pass).unwrap();
    prepared.begin(operation.act);
    prepared.control.wait_stopped(WAIT).unwrap();
    let Prepared {
        scene,
        control,
        peer,
        keeper,
        ours,
    } = prepared;

    let (acted, peer, result) = match cell.end {
        End::GoesOn => {
            let acted = if cell.action == Action::Read && scene.reader_waits() {
                Outcome::nothing(ours)
            } else {
                act(&scene, ours, cell.action)
            };
            expect_busy_at_most(operation, &acted);
            control.go().unwrap();
            let (peer, result) = finish(operation.act, peer);
            (acted, peer, Some(result))
        }
        End::Killed => {
            peer.kill().unwrap();
            let acted = act(&scene, ours, cell.action);
            expect_done(operation, &acted);
            (acted, None, None)
        }
    };
    if let Some(keeper) = keeper {
        keeper.close().unwrap();
    }
    let after = acted.seen.as_ref().and_then(|seen| recorded.is_after(seen));
    let peer = peer.unwrap_or_else(|| scene.stock(kind));
    if let (Some(Ok(read)), Act::Sql(SELECT)) = (&result, operation.act) {
        // A reader saw one of the two states that there were while it read.
        let known = [&recorded.before.rows, &rows(&scene)];
        assert!(known.contains(&read), "a stopped reader got {read:?}");
    }
    let wrote = u64::from(cell.action.writes() && acted.result.is_ok());
    let (count, sequence) = expect_sound(operation, &scene, peer, acted.ours);
    assert_eq!(sequence, wrote, "commits of ours");
    expect_count(recorded, result, count);
    after
}

fn act(scene: &Scene, ours: Option<Ours>, action: Action) -> Outcome {
    match ours {
        Some(ours) => ours.act(action),
        None => Ours::open_and(&scene.path, action),
    }
}

/// While the peer is stopped, ours is done or somebody is in its way.
fn expect_busy_at_most(operation: &Operation, acted: &Outcome) {
    match &acted.result {
        Ok(()) | Err(Error::Busy { .. } | Error::Locked { .. }) => {}
        Err(error) => expect_rollback_mode(operation, error),
    }
}

/// Once the peer is dead, nobody is in the way.
fn expect_done(operation: &Operation, acted: &Outcome) {
    if let Err(error) = &acted.result {
        expect_rollback_mode(operation, error);
    }
}

fn expect_rollback_mode(operation: &Operation, error: &Error) {
    let refused = matches!(error, Error::NotWalMode { .. } | Error::HotJournal { .. });
    assert!(operation.leaves_wal && refused, "{error}");
}

/// What `t` counts and the commit of ours that is there, in a sound database.
fn expect_sound(
    operation: &Operation,
    scene: &Scene,
    mut peer: StockSqlite,
    ours: Option<Ours>,
) -> (i64, u64) {
    if operation.leaves_wal && left_wal(scene, &mut peer) {
        assert!(ours.is_none(), "WAL mode was left beside ours");
        let refused = Ours::open(&scene.path).unwrap_err();
        assert!(matches!(refused, Error::NotWalMode { .. }), "{refused}");
        let checked = peer.run("PRAGMA integrity_check").unwrap().unwrap();
        assert_eq!(checked.text().unwrap(), "ok");
        let count = values(&mut peer).unwrap();
        return (count, Image::of_file(&scene.path).sequence());
    }
    let ours = ours.unwrap_or_else(|| Ours::open(&scene.path).unwrap());
    let (count, image) = scene.expect_sound(peer, ours);
    (count, image.sequence())
}

/// What `PRAGMA journal_mode` answers is no proof: SQLite says that it left WAL
/// mode even if somebody came between and still has a log.
fn left_wal(scene: &Scene, peer: &mut StockSqlite) -> bool {
    // A hot journal is rolled back by whoever looks at the file.
    values(peer).unwrap();
    let no_log = std::fs::metadata(scene.file("-wal")).map_or(true, |log| log.len() == 0);
    std::fs::read(&scene.path).unwrap()[18..20] == [1, 1] && no_log
}

/// What the peer was told is done if it said so, not done if it said that it
/// was busy, and either if it was killed.
fn expect_count(recorded: &Recorded, result: Option<Result<Rows, SqlError>>, count: i64) {
    let (before, after) = (recorded.before.count, recorded.after().count);
    match result {
        Some(Ok(_)) => assert_eq!(count, after, "an acknowledged commit is lost"),
        Some(Err(error)) => {
            assert!(error.is_busy(), "{error}");
            assert_eq!(count, before, "a refused commit is there");
        }
        None => assert!(count == before || count == after, "{count}"),
    }
}
