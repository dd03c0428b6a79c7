//! Writers in each language share the lock, and none of them gives up.

use integration::queue::{Language, Order, Outcome};

use crate::scene::{Scene, locked};

const WRITERS: usize = 8;
const SECONDS: f64 = 2.5;

/// The commits of the slowest by those of the fastest.
fn slowest_to_fastest(outcomes: &[Outcome]) -> f64 {
    let commits = || {
        let commits = outcomes.iter().map(|outcome| outcome.commits);
        commits.map(|commits| f64::from(u32::try_from(commits).unwrap()))
    };
    commits().fold(f64::INFINITY, f64::min) / commits().fold(1.0, f64::max)
}

/// Checks that writers in `languages`, in turn, share the lock, with orders as `change` makes them.
fn check_shares(languages: &[Language], change: impl Fn(&mut Order)) {
    let languages: Vec<_> = languages.iter().copied().cycle().take(WRITERS).collect();
    let scene = Scene::new(8);
    let outcomes = scene.run(&languages, SECONDS, change);
    let commits: Vec<_> = outcomes.iter().map(|outcome| outcome.commits).collect();
    assert_eq!(locked(&outcomes), 0, "{commits:?}");
    assert!(slowest_to_fastest(&outcomes) > 0.5, "{commits:?}");
}

#[test]
fn short_transactions_in_each_language_share_the_lock() {
    for language in Language::available() {
        check_shares(&[language], |_| {});
    }
}

#[test]
fn long_transactions_in_each_language_share_the_lock() {
    for language in Language::available() {
        check_shares(&[language], |order| order.pause_ms = 5);
    }
}

#[test]
fn writers_of_all_languages_share_the_lock() {
    check_shares(&Language::available(), |order| order.pause_ms = 2);
}

#[test]
fn stock_and_page_writers_share_the_lock() {
    // Longer than a time slice, in which one kind may commit more often than the other.
    for pause_ms in [2, 5] {
        let both = [Language::Rust, Language::Pages];
        check_shares(&both, |order| order.pause_ms = pause_ms);
    }
}

#[test]
fn synced_transactions_share_the_lock() {
    for group_commit in [false, true] {
        for languages in [&[Language::Rust][..], &[Language::Linked, Language::Pages]] {
            check_shares(languages, |order| {
                order.synchronous = "FULL".to_owned();
                order.group_commit = group_commit;
            });
        }
    }
}
