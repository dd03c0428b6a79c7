//! Words that many threads change, kept several times over, so that few threads
//! change the same one.
//!
//! Processors that change one word hand its cache line to each other, and wait for it.
//! A backend that counts readers in a word, and whoever counts references to what all
//! of them use, keeps that word once for each stripe, and a thread goes by [`mine`].
//!
//! A hold that is counted in a word has no name: whoever gives one back on another
//! thread than took it may take it out of any stripe ([`leave`]). There are as many as
//! holders in all of them together.

use crate::sync::{AtomicUsize, Ordering};

/// More would help on larger machines only, and who takes a lock alone goes through
/// all of them.
#[cfg(not(loom))]
const MOST: usize = 16;

/// Far more than the holds that others can take while one looks for its own.
const MOST_LOOKS: u32 = 1_000_000;

/// How many stripes there are: twice as many as processors, so that threads seldom
/// share one, and a power of two.
#[cfg(not(loom))]
#[must_use]
pub fn count() -> usize {
    // No `OnceLock`: a child may be forked while a thread is at it, and would wait for
    // ever.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let known = COUNT.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let count = (2 * processors).next_power_of_two().min(MOST);
    // Those who came at the same time may have found another number of processors.
    match COUNT.compare_exchange(0, count, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => count,
        Err(known) => known,
    }
}

/// How many stripes there are: a model of the protocol would not end with more. Models of
/// the locks alone have as many as they say.
#[cfg(loom)]
#[must_use]
pub fn count() -> usize {
    1
}

/// The one of `stripes` that is of this thread. There are a power of two of them, as
/// [`count`] is.
#[inline]
#[must_use]
pub fn mine<T>(stripes: &[T]) -> &T {
    &stripes[number_of_thread() & (stripes.len() - 1)]
}

/// Gives one hold back, of this thread's stripe or, if there is none, of any. `try_leave`
/// takes one out of a stripe, or says that it has none. False if the caller has no
/// hold, which is a bug of the caller.
#[inline]
#[must_use]
pub fn leave<T>(stripes: &[T], try_leave: impl Fn(&T) -> bool) -> bool {
    try_leave(mine(stripes)) || leave_another(stripes, try_leave)
}

/// Others who leave may take the hold of the caller, but leave theirs in a stripe then.
#[cold]
fn leave_another<T>(stripes: &[T], try_leave: impl Fn(&T) -> bool) -> bool {
    (0..MOST_LOOKS).any(|_| {
        std::hint::spin_loop();
        stripes.iter().any(&try_leave)
    })
}

/// A number that no other thread of this process has.
#[cfg(not(loom))]
#[inline]
pub(crate) fn number_of_thread() -> usize {
    use std::cell::Cell;

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
pub(crate) fn number_of_thread() -> usize {
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
        assert!(count().is_power_of_two());
        let stripes: Vec<usize> = (0..count()).collect();
        assert_eq!(*super::mine(&stripes), mine % count());
    }
}
