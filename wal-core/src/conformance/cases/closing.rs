//! What the last one out does.

use super::super::Backend;
use super::super::director::{Call, Then, Which};
use super::super::scene::Scene;
use crate::protocol::Synchronous;

pub(crate) fn the_last_one_out_removes_the_log_and_no_one_before<B: Backend>() {
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
pub(crate) fn last_closer_syncs_a_peers_backfill_before_it_removes_the_log<B: Backend>() {
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

pub(crate) fn a_log_that_is_not_backfilled_survives_the_last_one<B: Backend>() {
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
