//! The queue by itself, by a clock of the tests.

use super::*;

const ONE: u32 = 1;
const TWO: u32 = 2;
const MS: u32 = 1000;

/// A queue in which `ONE` has the time slice since 0.
fn queue() -> WriterQueue {
    let queue = WriterQueue::default();
    queue.begin_slice(ONE, 0, false);
    queue
}

#[test]
fn slot_of_a_skipped_waiter_belongs_to_the_next() {
    let queue = WriterQueue::default();
    let skipped = queue.enter(0).unwrap();
    queue.step_aside(skipped, 0);
    let first = queue.enter(3 * MS).unwrap();
    assert_eq!(queue.position(first, 3 * MS), Position::First);
    let second = queue.enter(3 * MS).unwrap();
    assert_eq!(second.at, skipped.at);
    queue.leave(first);
    // The waiter that was skipped comes back, and does not act for the next one.
    queue.step_aside(skipped, 3 * MS);
    let third = queue.enter(3 * MS).unwrap();
    assert_eq!(queue.position(third, 8 * MS), Position::Behind);
    assert_eq!(queue.position(skipped, 22 * MS), Position::Removed);
    assert_eq!(queue.position(third, 24 * MS), Position::First);
}

#[test]
fn waiter_aside_keeps_its_place_for_a_moment() {
    let queue = WriterQueue::default();
    let first = queue.enter(0).unwrap();
    let second = queue.enter(0).unwrap();
    queue.step_aside(first, MS);
    assert_eq!(queue.position(second, 2 * MS), Position::Behind);
    assert_eq!(queue.position(first, 2 * MS), Position::First, "it is back");
    assert_eq!(queue.position(second, 5 * MS), Position::Behind);
    queue.step_aside(first, 5 * MS);
    assert!(queue.has_live_waiter(6 * MS));
    assert_eq!(queue.position(second, 8 * MS), Position::First);
    assert_eq!(queue.position(first, 8 * MS), Position::Removed);
    let again = queue.enter_again(first, 8 * MS).unwrap();
    assert_eq!(
        queue.position(second, 8 * MS),
        Position::Behind,
        "its ticket is older"
    );
    queue.step_aside(again, 8 * MS);
    queue.step_aside(second, 8 * MS);
    assert!(!queue.has_live_waiter(11 * MS));
    assert_eq!(queue.occupied_slots(), 0);
}

#[test]
fn waiters_are_first_in_order_of_tickets_that_wrap() {
    for drawn in [0, u32::MAX - 1, u32::MAX] {
        let queue = queue();
        queue.drawn.store(drawn, Ordering::Relaxed);
        let slots: Vec<QueueSlot> = (0..4).map(|_| queue.enter(0).unwrap()).collect();
        for (at, &slot) in slots.iter().enumerate() {
            for &behind in &slots[at + 1..] {
                assert_eq!(queue.position(behind, 0), Position::Behind);
            }
            assert_eq!(queue.position(slot, 0), Position::First);
            assert!(std::ptr::eq(
                queue.next_to_wake(ONE, || 2 * MS).unwrap(),
                queue.word(slot)
            ));
            queue.leave(slot);
        }
        assert!(queue.next_to_wake(ONE, || 2 * MS).is_none());
        assert!(queue.may_bypass(TWO, 0), "no waiter is left");
    }
}

#[test]
fn thread_bypasses_the_queue_within_its_time_slice() {
    let queue = queue();
    assert!(queue.may_bypass(TWO, 0), "no writer waits");
    queue.enter(0).unwrap();
    assert!(queue.may_bypass(ONE, MS));
    assert!(!queue.may_bypass(ONE, MS + 1));
    assert!(!queue.may_bypass(TWO, 0));
    queue.begin_slice(ONE, 500, false);
    assert!(
        !queue.may_bypass(ONE, MS + 1),
        "coming back does not renew it"
    );
    queue.begin_slice(ONE, MS + 500, false);
    assert!(queue.may_bypass(ONE, 2 * MS), "it was over");
    assert!(queue.slice_runs(2 * MS) && !queue.slice_runs(3 * MS));
    queue.begin_slice(ONE, 2 * MS, true);
    assert!(queue.may_bypass(ONE, 3 * MS));
}

#[test]
fn first_is_woken_at_once_then_at_the_end_of_the_slice() {
    let queue = queue();
    let slot = queue.enter(0).unwrap();
    assert!(queue.next_to_wake(ONE, || 0).is_some());
    let left = queue.defer_wake_up(slot, 400);
    assert_eq!(left, Some(Duration::from_micros(600)));
    assert!(queue.next_to_wake(ONE, || 500).is_none());
    assert!(
        queue.next_to_wake(TWO, || 500).is_some(),
        "another thread came between"
    );
    assert!(queue.next_to_wake(ONE, || MS + 1).is_some());
    assert_eq!(queue.defer_wake_up(slot, MS + 1), None);
}

#[test]
fn silent_waiter_is_skipped_and_queues_again() {
    let queue = queue();
    let (gone, here) = (queue.enter(0).unwrap(), queue.enter(0).unwrap());
    assert_eq!(queue.position(here, 19 * MS), Position::Behind);
    assert_eq!(queue.position(gone, 19 * MS), Position::First);
    assert_eq!(queue.position(here, 38 * MS), Position::Behind);
    assert_eq!(queue.position(here, 39 * MS), Position::First);
    assert_eq!(queue.position(gone, 39 * MS), Position::Removed);
    let again = queue.enter(39 * MS).unwrap();
    queue.leave(gone);
    assert_eq!(
        queue.position(again, 39 * MS),
        Position::Behind,
        "the slot is another waiter's"
    );
    assert_eq!(queue.occupied_slots(), 2);
}

#[test]
fn sign_of_life_ahead_of_now_counts() {
    let queue = queue();
    let (first, second) = (queue.enter(100).unwrap(), queue.enter(0).unwrap());
    assert_eq!(queue.position(second, 50), Position::Behind);
    assert_eq!(queue.position(first, 100), Position::First);
}

#[test]
fn full_queue_has_no_slot() {
    let queue = queue();
    let slots: Vec<QueueSlot> = (0..SLOTS).map(|_| queue.enter(0).unwrap()).collect();
    assert_eq!(queue.enter(0), None);
    queue.leave(slots[7]);
    assert!(queue.enter(0).is_some());
    // All of them have died, and no other waiter is in the queue.
    assert!(queue.enter(90 * MS).is_some());
    assert_eq!(queue.occupied_slots(), 1);
}

#[test]
fn garbage_is_skipped() {
    let queue = queue();
    for (n, waiter) in (1..).zip(&queue.waiters[..100]) {
        waiter.ticket.store(0xdead_0000 + n, Ordering::Relaxed);
    }
    let slot = queue.enter(90 * MS).unwrap();
    assert_eq!(queue.position(slot, 90 * MS), Position::First);
    assert_eq!(queue.occupied_slots(), 1);
}
