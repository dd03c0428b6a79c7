//! One process uses a database through the library and through a SQLite of
//! its own, in every order: neither costs the other its locks, though SQLite's
//! belong to the process and end with any descriptor of the file. What they do at the
//! same moment is tried in `neighbour_locks`.
//!
//! `LockKind::Classic` is for processes without another SQLite, and is not
//! tried here.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#![cfg(target_os = "linux")]

mod locks;
mod scene;
use integration::worker::Worker;
use locks::Owner;
use scene::{Scene, Step};

/// The life of one handle.
fn life(owner: Owner) -> Vec<Step> {
    vec![
        Step::Open(owner),
        Step::Begin(owner),
        Step::End(owner),
        Step::Close(owner),
    ]
}

/// All orders of the steps of both that keep the order of each.
fn interleavings(one: &[Step], other: &[Step]) -> Vec<Vec<Step>> {
    let (Some((first, one_left)), Some((second, other_left))) =
        (one.split_first(), other.split_first())
    else {
        return vec![[one, other].concat()];
    };
    let begun_with = |step: &Step, rest: Vec<Vec<Step>>| {
        let step = *step;
        rest.into_iter()
            .map(move |rest| [vec![step], rest].concat())
    };
    begun_with(first, interleavings(one_left, other))
        .chain(begun_with(second, interleavings(one, other_left)))
        .collect()
}

/// Takes the steps, looks at the locks after each, and at the data at the end.
fn play(writer: Owner, steps: &[Step], onlooker: &mut Worker) {
    println!("{writer:?} writes: {steps:?}");
    let mut scene = Scene::new(writer);
    for &step in steps {
        scene.take(step);
        scene.expect_locks();
        scene.expect_seen_by(onlooker);
    }
    scene.expect_all_there();
    scene.expect_files_gone();
}

#[test]
fn ours_and_a_sqlite_in_the_same_process_keep_their_locks_in_every_order() {
    let orders = interleavings(&life(Owner::Ours), &life(Owner::Sqlite));
    assert_eq!(orders.len(), 70, "8 steps, of which 4 are ours");
    let mut onlooker = Worker::spawn().unwrap();
    for (number, steps) in orders.iter().enumerate() {
        let writer = [Owner::Ours, Owner::Sqlite][number % 2];
        play(writer, steps, &mut onlooker);
    }
    onlooker.end().unwrap();
}
