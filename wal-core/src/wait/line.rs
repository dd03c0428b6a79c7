//! The line of those who want to write, so that each gets its turn.
//!
//! # Protocol
//! Who does not get Write draws a ticket and takes a place. The first in line,
//! the one with the oldest ticket, tries when it is woken; who releases Write
//! wakes it. To hand Write over with every commit would cost a switch of
//! processes each, so who has Write keeps its *turn* for a millisecond, within
//! which it may come back ahead of the line; after that it takes a place at
//! the end like everybody else. The first in line is woken by the first
//! release in any case: if the one with the turn does not come back, nobody
//! waits for it. If that was in vain it asks to be left alone until the turn
//! is over.
//!
//! Each who waits says now and then that it is there. One that has not for
//! [`GONE`] is dead or stopped, and is passed over; should it come to, it
//! lines up anew.
//!
//! # Ordering
//! A waiter takes its place, or is woken, and then tries the lock; a releaser
//! gives the lock back, then looks for places. A fence lies between the two in
//! both, at each try, so at least one sees the other, and a word that the
//! waiter has read before its try ends its sleep.
//!
//! # Crash
//! A place of the dead costs those behind it at most [`GONE`], once. Garbage
//! is a place of the dead.

use std::fmt;
use std::time::Duration;

use super::clock::between;
use crate::sync::{AtomicU32, Ordering, fence};

/// How many can be in line; those beyond try now and then, as stock SQLite. A model looks
/// through all of them at each step.
const PLACES: usize = if cfg!(loom) { 3 } else { 128 };
/// How long a turn is.
const TURN: Duration = Duration::from_millis(1);
/// Who has not been heard of for this long is passed over.
const GONE: Duration = Duration::from_millis(20);
/// How often who waits says that it is there, at least. In a model, where no waiter seems to be
/// dead, it sleeps until it is woken, so that a lost wake-up shows.
pub(crate) const STILL_HERE: Duration = match cfg!(loom) {
    true => Duration::from_secs(3600),
    false => Duration::from_millis(5),
};

/// The line, in memory that all users share; zeros are an empty one. Times are
/// microseconds of the monotonic clock, and wrap.
#[repr(C)]
pub struct Line {
    /// The ticket that was drawn last.
    drawn: AtomicU32,
    /// Not 0 if somebody may be in line.
    in_line: AtomicU32,
    /// Whose turn it is.
    turn_of: AtomicU32,
    /// When that began.
    turn_since: AtomicU32,
    unused: [AtomicU32; 12],
    waiters: [Waiting; PLACES],
}

crate::shared_memory!(Line {
    drawn,
    in_line,
    turn_of,
    turn_since,
    unused,
    waiters,
});

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("drawn", &self.drawn)
            .field("in_line", &self.in_line)
            .field("turn_of", &self.turn_of)
            .finish_non_exhaustive()
    }
}

/// Who stands at a place.
#[repr(C)]
#[derive(Debug, Default)]
struct Waiting {
    /// 0 for nobody.
    ticket: AtomicU32,
    /// Counted up to wake it.
    woken: AtomicU32,
    /// When it was heard of.
    heard: AtomicU32,
    /// Not 0 if it is not to be woken before the turn is over.
    patient: AtomicU32,
}

crate::shared_memory!(Waiting {
    ticket,
    woken,
    heard,
    patient,
});

impl Default for Line {
    fn default() -> Self {
        Line {
            drawn: AtomicU32::new(0),
            in_line: AtomicU32::new(0),
            turn_of: AtomicU32::new(0),
            turn_since: AtomicU32::new(0),
            unused: Default::default(),
            waiters: std::array::from_fn(|_| Waiting::default()),
        }
    }
}

/// A place in line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    at: usize,
    ticket: u32,
}

/// What who waits may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Try to take Write.
    Try,
    /// Wait until it is woken.
    Wait,
    /// Line up again: it was taken for dead.
    Lost,
}

impl Line {
    /// True if `who`, which is not in line, may try to take Write at `now`:
    /// nobody waits, or it has the turn.
    pub fn may_pass(&self, who: u32, now: u32) -> bool {
        self.in_line.load(Ordering::SeqCst) == 0 || self.turn_left(who, now).is_some()
    }

    /// True if a turn, whoever's it is, is not over at `now`.
    pub fn turn_goes_on(&self, now: u32) -> bool {
        self.left(now).is_some()
    }

    /// What is left of the turn.
    fn left(&self, now: u32) -> Option<Duration> {
        let since = self.turn_since.load(Ordering::Relaxed);
        TURN.checked_sub(between(since, now))
    }

    /// What is left of the turn, if it is that of `who`.
    fn turn_left(&self, who: u32, now: u32) -> Option<Duration> {
        let has_turn = self.turn_of.load(Ordering::Relaxed) == who;
        self.left(now).filter(|_| has_turn)
    }

    /// Says that `who` has Write, at `now`. Its turn begins, unless it has
    /// come back within it.
    pub fn begin_turn(&self, who: u32, now: u32, from_line: bool) {
        if from_line || self.turn_left(who, now).is_none() {
            self.turn_since.store(now, Ordering::Relaxed);
            self.turn_of.store(who, Ordering::Relaxed);
        }
    }

    /// Says that `who` will not come back for Write for a while: the next one
    /// is woken at the release that follows.
    pub fn end_turn(&self, who: u32) {
        // Fails if somebody else has the turn.
        let _ = self
            .turn_of
            .compare_exchange(who, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes a place at the end; `None` if all are taken.
    pub fn enter(&self, now: u32) -> Option<Place> {
        let mut ticket = 0;
        while ticket == 0 {
            ticket = self.drawn.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        }
        let free = |waiter: &Waiting| {
            if waiter.ticket.load(Ordering::SeqCst) != 0 {
                return false;
            }
            // Before the place is taken: who looks at it then finds somebody who is there.
            waiter.heard.store(now, Ordering::SeqCst);
            let claimed =
                waiter
                    .ticket
                    .compare_exchange(0, ticket, Ordering::SeqCst, Ordering::Relaxed);
            claimed.is_ok()
        };
        let at = self.waiters.iter().position(free).or_else(|| {
            // Nobody is left in line to remove those who died there.
            for waiter in &self.waiters {
                waiter.is_removed_if_gone(waiter.ticket.load(Ordering::SeqCst), now);
            }
            self.waiters.iter().position(free)
        })?;
        self.waiters[at].patient.store(0, Ordering::Relaxed);
        // Behind the ticket: who sees nobody and takes this back has not seen
        // the ticket, and so takes it back before.
        self.in_line.swap(1, Ordering::SeqCst);
        Some(Place { at, ticket })
    }

    /// Says that the one at `place` is there at `now`, and tells what it may
    /// do. Those before it that are gone lose their places.
    pub fn turn(&self, place: Place, now: u32) -> Turn {
        // Behind the word that the caller has loaded, and before its try: a release that the
        // try does not see finds what the one before it has left here.
        fence(Ordering::SeqCst);
        let own = &self.waiters[place.at];
        own.heard.store(now, Ordering::Relaxed);
        if own.ticket.load(Ordering::SeqCst) != place.ticket {
            return Turn::Lost;
        }
        let before = |ticket: u32| ticket != 0 && self.age(ticket) > self.age(place.ticket);
        for waiter in &self.waiters {
            let ticket = waiter.ticket.load(Ordering::SeqCst);
            if before(ticket) && !waiter.is_removed_if_gone(ticket, now) {
                return Turn::Wait;
            }
        }
        Turn::Try
    }

    /// The word that the one at `place` sleeps on.
    pub fn word(&self, place: Place) -> &AtomicU32 {
        &self.waiters[place.at].woken
    }

    /// Changes the word that the one at `place` sleeps on, which is to be woken.
    pub fn call(&self, place: Place) -> &AtomicU32 {
        self.waiters[place.at].call()
    }

    /// What is left at `now` of a turn that is not over, for the first in line
    /// that found Write taken: it is woken then, and not before.
    pub fn be_patient(&self, place: Place, now: u32) -> Option<Duration> {
        let left = self.left(now);
        let patient = &self.waiters[place.at].patient;
        patient.store(u32::from(left.is_some()), Ordering::SeqCst);
        left
    }

    /// Gives `place` up.
    pub fn leave(&self, place: Place) {
        let ticket = &self.waiters[place.at].ticket;
        let _taken_for_dead =
            ticket.compare_exchange(place.ticket, 0, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Finds whom to wake at `now`, when `who` has released Write; its word is
    /// changed already. `None` if nobody is to be woken.
    pub fn next(&self, who: u32, now: impl Fn() -> u32) -> Option<&AtomicU32> {
        fence(Ordering::SeqCst);
        if self.in_line.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let waiter = self.first().or_else(|| {
            // Taken back before it is looked once more, so that nobody who
            // comes meanwhile is forgotten.
            self.in_line.swap(0, Ordering::SeqCst);
            let first = self.first()?;
            self.in_line.store(1, Ordering::SeqCst);
            Some(first)
        })?;
        let patient = waiter.patient.load(Ordering::SeqCst) != 0;
        if patient && self.turn_left(who, now()).is_some() {
            return None;
        }
        Some(waiter.call())
    }

    fn first(&self) -> Option<&Waiting> {
        let ticket = |waiter: &Waiting| waiter.ticket.load(Ordering::SeqCst);
        let waiting = self.waiters.iter().filter(|waiter| ticket(waiter) != 0);
        waiting.max_by_key(|waiter| self.age(ticket(waiter)))
    }

    /// How many tickets were drawn since.
    fn age(&self, ticket: u32) -> u32 {
        self.drawn.load(Ordering::SeqCst).wrapping_sub(ticket)
    }

    /// How many are in line, the dead included.
    #[cfg(all(any(test, feature = "step-points"), not(loom)))]
    #[doc(hidden)]
    pub fn occupied_slots(&self) -> usize {
        let taken = |waiter: &&Waiting| waiter.ticket.load(Ordering::SeqCst) != 0;
        self.waiters.iter().filter(taken).count()
    }
}

impl Waiting {
    /// Changes the word that is slept on.
    fn call(&self) -> &AtomicU32 {
        self.woken.fetch_add(1, Ordering::SeqCst);
        &self.woken
    }

    /// Removes the one that has `ticket` here if it was not heard of for long.
    fn is_removed_if_gone(&self, ticket: u32, now: u32) -> bool {
        let heard = self.heard.load(Ordering::Relaxed);
        // One that speaks at this moment may be ahead of `now`.
        let silent = between(heard, now);
        let gone = silent >= GONE && between(now, heard) >= GONE;
        if gone {
            // If it fails, that one has left, and who has come since is behind.
            let _ = self
                .ticket
                .compare_exchange(ticket, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
        gone
    }
}

/// A number for this thread, which no other thread of any process is likely to
/// have.
#[cfg(not(loom))]
pub fn who() -> u32 {
    use std::cell::Cell;

    use crate::fork::ProcessGeneration;
    use crate::types::Salts;

    thread_local! {
        static WHO: Cell<(Option<ProcessGeneration>, u32)> = const { Cell::new((None, 0)) };
    }
    let process = Some(ProcessGeneration::current());
    let (known_in, number) = WHO.get();
    if known_in == process {
        return number;
    }
    // Drawn again in a forked child, which has its own turns.
    let Salts([a, b, c, d, ..]) = Salts::random();
    let number = u32::from_ne_bytes([a, b, c, d]) | 1;
    WHO.set((process, number));
    number
}

/// Threads of a model are on one thread of the system, and the same in each execution.
#[cfg(loom)]
pub fn who() -> u32 {
    u32::try_from(crate::stripes::number_of_thread()).map_or(1, |number| number << 1 | 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ONE: u32 = 1;
    const TWO: u32 = 2;
    const MS: u32 = 1000;

    /// A line in which `ONE` has the turn since 0.
    fn line() -> Line {
        let line = Line::default();
        line.begin_turn(ONE, 0, false);
        line
    }

    #[test]
    fn they_come_in_the_order_of_their_tickets_also_when_those_wrap() {
        for drawn in [0, u32::MAX - 1, u32::MAX] {
            let line = line();
            line.drawn.store(drawn, Ordering::Relaxed);
            let places: Vec<Place> = (0..4).map(|_| line.enter(0).unwrap()).collect();
            for (at, &place) in places.iter().enumerate() {
                for &behind in &places[at + 1..] {
                    assert_eq!(line.turn(behind, 0), Turn::Wait);
                }
                assert_eq!(line.turn(place, 0), Turn::Try);
                assert!(std::ptr::eq(
                    line.next(ONE, || 2 * MS).unwrap(),
                    line.word(place)
                ));
                line.leave(place);
            }
            assert!(line.next(ONE, || 2 * MS).is_none());
            assert!(line.may_pass(TWO, 0), "nobody is left");
        }
    }

    #[test]
    fn who_has_the_turn_passes_the_line_until_it_is_over() {
        let line = line();
        assert!(line.may_pass(TWO, 0), "nobody waits");
        line.enter(0).unwrap();
        assert!(line.may_pass(ONE, MS));
        assert!(!line.may_pass(ONE, MS + 1));
        assert!(!line.may_pass(TWO, 0));
        line.begin_turn(ONE, 500, false);
        assert!(!line.may_pass(ONE, MS + 1), "coming back does not renew it");
        line.begin_turn(ONE, MS + 500, false);
        assert!(line.may_pass(ONE, 2 * MS), "it was over");
        assert!(line.turn_goes_on(2 * MS) && !line.turn_goes_on(3 * MS));
        line.begin_turn(ONE, 2 * MS, true);
        assert!(line.may_pass(ONE, 3 * MS));
    }

    #[test]
    fn the_first_in_line_is_woken_at_once_and_then_at_the_end_of_the_turn() {
        let line = line();
        let place = line.enter(0).unwrap();
        assert!(line.next(ONE, || 0).is_some());
        let left = line.be_patient(place, 400);
        assert_eq!(left, Some(Duration::from_micros(600)));
        assert!(line.next(ONE, || 500).is_none());
        assert!(
            line.next(TWO, || 500).is_some(),
            "somebody else came between"
        );
        assert!(line.next(ONE, || MS + 1).is_some());
        assert_eq!(line.be_patient(place, MS + 1), None);
    }

    #[test]
    fn who_is_not_heard_of_is_passed_over_and_lines_up_again() {
        let line = line();
        let (gone, here) = (line.enter(0).unwrap(), line.enter(0).unwrap());
        assert_eq!(line.turn(here, 19 * MS), Turn::Wait);
        assert_eq!(line.turn(gone, 19 * MS), Turn::Try);
        assert_eq!(line.turn(here, 38 * MS), Turn::Wait);
        assert_eq!(line.turn(here, 39 * MS), Turn::Try);
        assert_eq!(line.turn(gone, 39 * MS), Turn::Lost);
        let again = line.enter(39 * MS).unwrap();
        line.leave(gone);
        assert_eq!(
            line.turn(again, 39 * MS),
            Turn::Wait,
            "the place is another's"
        );
        assert_eq!(line.occupied_slots(), 2);
    }

    #[test]
    fn who_speaks_a_moment_later_is_not_taken_for_gone() {
        let line = line();
        let (first, second) = (line.enter(100).unwrap(), line.enter(0).unwrap());
        assert_eq!(line.turn(second, 50), Turn::Wait);
        assert_eq!(line.turn(first, 100), Turn::Try);
    }

    #[test]
    fn a_full_line_has_no_place() {
        let line = line();
        let places: Vec<Place> = (0..PLACES).map(|_| line.enter(0).unwrap()).collect();
        assert_eq!(line.enter(0), None);
        line.leave(places[7]);
        assert!(line.enter(0).is_some());
        // All of them have died, and nobody else is in line.
        assert!(line.enter(90 * MS).is_some());
        assert_eq!(line.occupied_slots(), 1);
    }

    #[test]
    fn garbage_is_passed_over() {
        let line = line();
        for (n, waiter) in (1..).zip(&line.waiters[..100]) {
            waiter.ticket.store(0xdead_0000 + n, Ordering::Relaxed);
        }
        let place = line.enter(90 * MS).unwrap();
        assert_eq!(line.turn(place, 90 * MS), Turn::Try);
        assert_eq!(line.occupied_slots(), 1);
    }
}
