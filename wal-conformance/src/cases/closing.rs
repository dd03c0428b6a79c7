//! What the last one out does.

use crate::calls::{Call, Which};
use crate::director::Then;
use crate::scene::{Scene, version_in};
use crate::subject::Subject;
use wal_core::protocol::{Synchronous, WalConfig};
use wal_core::types::{Lock, LockMode, PageNo};

pub(crate) fn the_last_one_out_removes_the_log_and_no_one_before<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (one, two) = scene.two();
    one.commit(&[1, 2, 3], 1);
    one.wal.close().unwrap();
    assert!(scene.log_path().exists(), "removed under the other user");
    assert_eq!(two.versions(), [1; 3]);
    two.commit(&[2], 2);
    let (closed, trace) = two.trace(|two| two.wal.close());
    closed.unwrap();
    assert!(!scene.log_path().exists(), "the log is left");
    let database = std::fs::read(scene.path()).unwrap();
    let versions: Vec<u8> = database.chunks(512).map(|page| page[4]).collect();
    assert_eq!(versions, [1, 2, 1]);
    let at = |wanted: Call| trace.iter().position(|&call| call == wanted);
    let synced = at(Call::Sync(Which::Database)).expect("the database is synced");
    let index = at(Call::Remove).expect("the index is removed");
    let log = at(Call::RemoveLog).expect("the log is removed");
    assert!(synced < index && index < log, "{trace:?}");
    let (again, trace) = one.trace(|one| one.wal.close());
    assert!(
        again.is_ok() && trace.is_empty(),
        "a second close did something: {trace:?}"
    );
}

/// The count of a peer at `Synchronous::Off` does not make its pages durable.
pub(crate) fn last_closer_syncs_a_peers_backfill_before_it_removes_the_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let (careless, last) = (scene.user_at(Synchronous::Off), scene.user());
    last.commit(&[1, 2], 1);
    careless.checkpoint_all();
    careless.wal.close().unwrap();
    let (closed, trace) = last.trace(|last| last.wal.close());
    closed.unwrap();
    let at = |wanted: Call| trace.iter().position(|&call| call == wanted);
    let removed = at(Call::RemoveLog).expect("the log is removed");
    let synced = at(Call::Sync(Which::Database)).expect("the database is synced");
    assert!(synced < removed, "{trace:?}");
}

/// Its own reader holds the last checkpoint back.
pub(crate) fn last_closer_with_a_reader_leaves_the_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.commit(&[1, 2], 1);
    let reading = user.read();
    user.commit(&[1], 2);
    user.wal.close().unwrap();
    assert!(scene.log_path().exists(), "the only copy of a commit went");
    drop(reading);
    let (database, log) = scene.files();
    let again = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(again.user().versions(), [2, 1]);
}

/// The header is damaged after the last checkpoint.
pub(crate) fn last_closer_that_cannot_read_the_header_leaves_the_log<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.commit(&[1, 2], 1);
    let damages = user.clone();
    let released = Call::Unlock(Lock::Checkpoint, LockMode::Exclusive);
    user.before(
        move |call| *call == released,
        move || damages.damage_header(),
    );
    user.wal.close().unwrap();
    user.assert_stepped_in();
    assert!(scene.log_path().exists(), "removed without a proof");
    let (database, log) = scene.files();
    let again = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(again.user().versions(), [1, 1]);
}

pub(crate) fn a_log_that_is_not_backfilled_survives_the_last_one<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user();
    user.commit(&[1, 2], 1);
    user.then(|call| *call == Call::Sync(Which::Database), || Then::Fail);
    assert!(user.wal.close().is_err(), "the failure is told");
    assert!(scene.log_path().exists());
    let (database, log) = scene.files();
    let again = Scene::<B>::from_files(&database, Some(&log));
    assert_eq!(again.user().versions(), [1, 1]);
}

/// Closes the only user of a database with two commits in its log, and gives its calls.
fn close_at<B: Subject>(
    scene: &Scene<B>,
    change: impl FnOnce(&mut WalConfig),
    commits: bool,
) -> Vec<Call> {
    let user = scene.user_with(change);
    match commits {
        true => user.commit(&[1, 2], 1),
        false => drop(user.read()),
    }
    let (closed, trace) = user.trace(|user| user.wal.close());
    closed.expect("it is closed");
    trace
}

/// A log that came back after a power failure would be taken for a part of whatever
/// database has its name by then.
pub(crate) fn removed_log_is_durable_when_close_returns<B: Subject>() {
    for level in [Synchronous::Normal, Synchronous::Full] {
        let trace = close_at(&Scene::<B>::new(2), |c| c.synchronous = level, true);
        let last = &trace[trace.len() - 2..];
        assert_eq!(last, [Call::RemoveLog, Call::SyncDirectory], "{level:?}");
        // An empty log may come back, and a reader does not wait for the disk.
        let trace = close_at(&Scene::<B>::new(2), |c| c.synchronous = level, false);
        assert!(trace.contains(&Call::RemoveLog), "{trace:?}");
        assert!(!trace.contains(&Call::SyncDirectory), "{trace:?}");
    }
    let off = |config: &mut WalConfig| config.synchronous = Synchronous::Off;
    let trace = close_at(&Scene::<B>::new(2), off, true);
    assert!(!trace.contains(&Call::SyncDirectory), "{trace:?}");
}

pub(crate) fn persistent_log_of_an_open_reader_is_not_cut_by_close<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let user = scene.user_with(|config| {
        config.persistent_log = true;
        config.log_size_limit = Some(0);
    });
    user.commit(&[1, 2], 1);
    let reading = user.read();
    let page = reading.page(PageNo::ONE).expect("the page is read");
    let (closed, trace) = user.trace(|user| user.wal.close());
    closed.expect("it is closed");
    assert!(!trace.contains(&Call::SetLen(Which::Log, 0)), "{trace:?}");
    assert_eq!(version_in(1, &page), 1);
}

pub(crate) fn persistent_log_is_emptied_durably_if_it_has_a_limit<B: Subject>() {
    let config = |limit, level| {
        move |config: &mut WalConfig| {
            config.persistent_log = true;
            config.log_size_limit = limit;
            config.synchronous = level;
        }
    };
    let (cut, sync) = (Call::SetLen(Which::Log, 0), Call::Sync(Which::Log));
    for level in [Synchronous::Off, Synchronous::Normal, Synchronous::Full] {
        let scene = Scene::<B>::new(2);
        let trace = close_at(&scene, config(None, level), true);
        assert!(!trace.contains(&cut) && !trace.contains(&Call::RemoveLog));
        assert_eq!(scene.files().1.len(), 32 + 2 * (24 + 512));
        // To nothing, whatever the limit is: a log of part of its frames is none.
        for limit in [0, 600, 1 << 20] {
            let scene = Scene::<B>::new(2);
            let mut trace = close_at(&scene, config(Some(limit), level), true);
            trace.retain(|call| matches!(call, Call::SetLen(..) | Call::Sync(_)));
            let last = match level {
                Synchronous::Off => &[cut][..],
                _ => &[cut, sync],
            };
            assert!(trace.ends_with(last), "{level:?}: {trace:?}");
            let (database, log) = scene.files();
            assert!(log.is_empty());
            let again = Scene::<B>::from_files(&database, Some(&log));
            assert_eq!(again.user().versions(), [1, 1]);
            let trace = close_at(&Scene::<B>::new(2), config(Some(limit), level), false);
            assert!(!trace.contains(&cut), "an empty log was cut: {trace:?}");
        }
    }
}
