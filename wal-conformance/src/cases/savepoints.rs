//! Savepoints of the write transaction, in memory and in the log.

use super::spilling::{expect_pages, expect_recovered, number, tight_user};
use crate::scene::{Scene, Writing, fill};
use crate::subject::Subject;
use wal_core::error::Error;
use wal_core::testing::index::page_of_frame;

/// How much fits in memory: everything, or so little that each page is
/// spilled by the next.
const BUDGETS: [u64; 4] = [0, 3, 2, 1];

pub(crate) fn a_rollback_to_a_savepoint_restores_pages_and_size<B: Subject>() {
    for budget in BUDGETS {
        let scene = Scene::<B>::new(4);
        let writer = tight_user(&scene, budget);
        writer.commit(&[4], 1);
        let mut tx = writer.write();
        fill(&mut tx, &[1, 2], 2).unwrap();
        let savepoint = tx.savepoint();
        for version in 3..6 {
            fill(&mut tx, &[2, 3, 5, 6], version).unwrap();
            expect_pages::<B>(&tx, &[2, version, version, 1, version, version]);
            tx.rollback_to(savepoint).unwrap();
            assert_eq!(tx.page_count(), 4, "budget {budget}");
            expect_pages::<B>(&tx, &[2, 2, 0, 1]);
        }
        fill(&mut tx, &[3], 6).unwrap();
        tx.commit().unwrap();
        assert_eq!(writer.versions(), [2, 2, 6, 1], "budget {budget}");
        expect_recovered(&scene, &[2, 2, 6, 1]);
    }
}

pub(crate) fn a_rollback_to_a_savepoint_brings_back_what_was_cut_off<B: Subject>() {
    for budget in BUDGETS {
        let scene = Scene::<B>::new(4);
        let writer = tight_user(&scene, budget);
        let mut tx = writer.write();
        fill(&mut tx, &[3, 4, 5], 1).unwrap();
        let savepoint = tx.savepoint();
        tx.set_page_count(2).unwrap();
        tx.set_page_count(4).unwrap();
        assert!(tx.page(number(3)).unwrap().iter().all(|&byte| byte == 0));
        fill(&mut tx, &[1], 2).unwrap();
        let mut named = Vec::new();
        tx.rollback_to_with(savepoint, |page| named.push(page.get()))
            .unwrap();
        assert_eq!(named, [1, 3, 4, 5], "budget {budget}");
        assert_eq!(tx.page_count(), 5);
        expect_pages::<B>(&tx, &[0, 0, 1, 1, 1]);
        tx.commit().unwrap();
        assert_eq!(writer.versions(), [0, 0, 1, 1, 1], "budget {budget}");
        expect_recovered(&scene, &[0, 0, 1, 1, 1]);
    }
}

/// Sets three savepoints, one within the other, with changes between them.
fn nest<B: Subject>(tx: &mut Writing<B>) -> [wal_core::protocol::Savepoint; 3] {
    fill(tx, &[1, 2, 3], 1).unwrap();
    let outer = tx.savepoint();
    fill(tx, &[2, 3], 2).unwrap();
    let middle = tx.savepoint();
    fill(tx, &[3, 4], 3).unwrap();
    let inner = tx.savepoint();
    fill(tx, &[1, 3, 4], 4).unwrap();
    [outer, middle, inner]
}

pub(crate) fn savepoints_lie_one_within_the_other<B: Subject>() {
    for budget in BUDGETS {
        let scene = Scene::<B>::new(4);
        let writer = tight_user(&scene, budget);
        let mut tx = writer.write();
        let [outer, middle, inner] = nest::<B>(&mut tx);
        expect_pages::<B>(&tx, &[4, 2, 4, 4]);
        tx.rollback_to(inner).unwrap();
        expect_pages::<B>(&tx, &[1, 2, 3, 3]);
        tx.rollback_to(middle).unwrap();
        expect_pages::<B>(&tx, &[1, 2, 2, 0]);
        tx.rollback_to(outer).unwrap();
        expect_pages::<B>(&tx, &[1, 1, 1, 0]);
        drop(tx);
        let mut tx = writer.write();
        let [outer, _, inner] = nest::<B>(&mut tx);
        tx.release(inner).unwrap();
        tx.rollback_to(outer).unwrap();
        expect_pages::<B>(&tx, &[1, 1, 1, 0]);
        tx.commit().unwrap();
        assert_eq!(writer.versions(), [1, 1, 1, 0], "budget {budget}");
        expect_recovered(&scene, &[1, 1, 1, 0]);
    }
}

pub(crate) fn a_released_savepoint_keeps_its_changes_for_the_outer_one<B: Subject>() {
    for budget in BUDGETS {
        let scene = Scene::<B>::new(3);
        let writer = tight_user(&scene, budget);
        let mut tx = writer.write();
        fill(&mut tx, &[1], 1).unwrap();
        let outer = tx.savepoint();
        fill(&mut tx, &[2], 2).unwrap();
        let inner = tx.savepoint();
        fill(&mut tx, &[1, 2, 3], 3).unwrap();
        tx.release(inner).unwrap();
        expect_pages::<B>(&tx, &[3; 3]);
        let mut named = Vec::new();
        tx.rollback_to_with(outer, |page| named.push(page.get()))
            .unwrap();
        assert_eq!(named, [1, 2, 3], "budget {budget}");
        expect_pages::<B>(&tx, &[1, 0, 0]);
        tx.release(outer).unwrap();
        tx.commit().unwrap();
        assert_eq!(writer.versions(), [1, 0, 0], "budget {budget}");
    }
}

pub(crate) fn a_savepoint_that_is_gone_or_foreign_is_refused<B: Subject>() {
    let scene = Scene::<B>::new(2);
    let writer = scene.user();
    let mut tx = writer.write();
    let foreign = tx.savepoint();
    drop(tx);
    let mut tx = writer.write();
    let outer = tx.savepoint();
    let inner = tx.savepoint();
    let released = tx.savepoint();
    tx.release(released).unwrap();
    tx.rollback_to(outer).unwrap();
    for gone in [foreign, inner, released] {
        let refused = [
            tx.rollback_to(gone),
            tx.rollback_to_with(gone, |page| panic!("{page:?} was named")),
            tx.release(gone),
        ];
        for refused in refused {
            assert!(
                matches!(refused, Err(Error::NoSuchSavepoint)),
                "{refused:?}"
            );
        }
    }
    tx.rollback_to(outer).unwrap();
}

/// A savepoint set before the first spill, which restarts the log: its end of
/// the log is one of the new generation.
pub(crate) fn a_savepoint_outlives_a_restart_of_the_log<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = tight_user(&scene, 1);
    writer.commit(&[1, 2, 3], 1);
    writer.checkpoint_all();
    let salts = writer.header().salts();
    let mut tx = writer.write();
    let empty = tx.savepoint();
    fill(&mut tx, &[1], 2).unwrap();
    let savepoint = tx.savepoint();
    fill(&mut tx, &[1, 2, 3], 3).unwrap();
    assert_ne!(writer.header().salts(), salts, "the log was not restarted");
    tx.rollback_to(savepoint).unwrap();
    expect_pages::<B>(&tx, &[2, 1, 1]);
    tx.rollback_to(empty).unwrap();
    expect_pages::<B>(&tx, &[1, 1, 1]);
    fill(&mut tx, &[3], 4).unwrap();
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [1, 1, 4]);
    expect_recovered(&scene, &[1, 1, 4]);
}

/// What a savepoint needs of the log is not overwritten, however often its
/// pages are changed again.
pub(crate) fn a_frame_before_a_savepoint_is_not_overwritten<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    let mut tx = writer.write();
    fill(&mut tx, &[1, 2], 1).unwrap();
    tx.spill().unwrap();
    let savepoint = tx.savepoint();
    // Page 2 is changed when the savepoint is in the log already.
    for (version, pages) in [(2, &[1, 3][..]), (3, &[1, 2, 3]), (4, &[1, 2, 3])] {
        fill(&mut tx, pages, version).unwrap();
        tx.spill().unwrap();
    }
    tx.rollback_to(savepoint).unwrap();
    expect_pages::<B>(&tx, &[1, 1, 0]);
    // Frames behind the savepoint are gone from the index.
    assert_eq!(page_of_frame(&writer.wal, 2).unwrap(), 2);
    assert_eq!(page_of_frame(&writer.wal, 3).unwrap(), 0);
    tx.commit().unwrap();
    expect_recovered(&scene, &[1, 1, 0]);
}

/// Frames overwritten before a savepoint have wrong checksums when it is
/// rolled back to; the commit makes them right all the same.
pub(crate) fn checksums_are_made_right_behind_a_rollback_to_a_savepoint<B: Subject>() {
    let scene = Scene::<B>::new(3);
    let writer = scene.user();
    let mut tx = writer.write();
    for version in 1..3 {
        fill(&mut tx, &[1, 2], version).unwrap();
        tx.spill().unwrap();
    }
    let savepoint = tx.savepoint();
    fill(&mut tx, &[1, 3], 3).unwrap();
    tx.spill().unwrap();
    fill(&mut tx, &[1, 3], 4).unwrap();
    tx.spill().unwrap();
    tx.rollback_to(savepoint).unwrap();
    fill(&mut tx, &[3], 5).unwrap();
    tx.commit().unwrap();
    assert_eq!(writer.versions(), [2, 2, 5]);
    expect_recovered(&scene, &[2, 2, 5]);
}
