//! Words that many threads change, kept several times over, so that few threads
//! change the same one.
//!
//! Two processors that change one word hand its cache line to each other, which takes
//! longer than all else that a short read does. A backend that counts readers in a
//! word, and whoever counts references to what all of them use, keeps that word once
//! for each stripe, and a thread goes by the one at [`of_thread`].

use std::sync::OnceLock;

/// More would help on larger machines only, and who takes a lock alone goes through
/// all of them.
const MOST: usize = 16;

/// How many stripes there are: twice as many as processors, so that threads seldom
/// share one, and a power of two.
#[must_use]
pub fn count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        match cfg!(loom) {
            // A model of the protocol would not end with more.
            true => 1,
            false => (2 * processors).next_power_of_two().min(MOST),
        }
    })
}

/// Which of `count` stripes is that of this thread. `count` is a power of two, as
/// [`count()`] is.
#[inline]
#[must_use]
pub fn of_thread(count: usize) -> usize {
    number_of_thread() & (count - 1)
}

/// A number that no other thread of this process has.
#[cfg(not(loom))]
#[inline]
fn number_of_thread() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const NONE: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    }
    match NUMBER.get() {
        NONE => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            NUMBER.set(number);
            number
        }
        number => number,
    }
}

/// Threads of a model are numbered as they come, anew in each execution.
#[cfg(loom)]
fn number_of_thread() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};

    loom::lazy_static! {
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }
    loom::thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_number_and_no_other_has_it() {
        let mine = number_of_thread();
        let others = [(); 8].map(|()| std::thread::spawn(number_of_thread).join().unwrap());
        let mut all = [&others[..], &[mine]].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
        assert_eq!(number_of_thread(), mine);
        assert!(count().is_power_of_two() && of_thread(count()) < count());
    }
}
