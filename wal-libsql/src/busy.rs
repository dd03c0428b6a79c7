//! The busy handler of a connection, which waits in the writer queue.
//!
//! # Protocol
//! The engine opens a snapshot and asks the log for `WRITE`. If that is busy, it ends the
//! snapshot, calls the busy handler of the connection, and begins again. The engine's own
//! handler sleeps for a fixed time, so beside writers that are woken it starves. This one takes
//! the *wish* that the log has left to its thread, and waits in the queue until the log may
//! try. Without a wish, as for a lock that readers hold, it sleeps a little longer each time.
//!
//! The time that a statement waits is measured, so that a timeout is what was asked for. An
//! interrupt ends the wait; the retry of the log then returns `SQLITE_INTERRUPT`.
//!
//! A wish is of use to the handler that the engine calls next on its thread, for the same
//! connection. Where a driver runs the statements, the connection is not known. A wish that a
//! handler of the application has left may then be taken by that of another connection, which
//! waits once for a log that does not try; that costs a pause, and grants nothing.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use libsql_ffi as ffi;
use wal_core::sync::Unpoison;

use crate::guard::guarded;

/// Under which name a connection has its [`Waiting`].
const NAME: &CStr = c"wal-libsql busy handler";
/// How soon an interrupt ends a wait, and the longest sleep without a wish.
const LOOK_FOR_INTERRUPT: Duration = Duration::from_millis(10);
/// The first sleep without a wish; each later sleep is longer by as much.
const FIRST_SLEEP: Duration = Duration::from_millis(1);
/// What a try of the engine counts as at most.
const LONGEST_TRY: Duration = Duration::from_millis(10);

/// A log that asks for `WRITE`, as the handler waits for it.
pub(crate) trait Wishes: Send {
    /// Waits until the log may try, and returns true; false if `until` has passed before.
    fn wait(&mut self, until: Instant) -> bool;
    /// Notes how the wait has ended.
    fn end(&mut self, outcome: Outcome);
}

/// How a wait has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The engine begins again.
    Retry,
    /// The connection is interrupted: the engine begins again, and the log returns
    /// `SQLITE_INTERRUPT`.
    Interrupted,
    /// The timeout is over: the engine does not begin again.
    GaveUp,
}

/// The log that was refused `WRITE` last on a thread.
struct Wish {
    /// The connection whose statement ran; null if it is not known.
    db: *mut ffi::sqlite3,
    /// The connection may be closed on another thread, so the log is not kept.
    log: Weak<Mutex<dyn Wishes>>,
}

thread_local! {
    static WISH: RefCell<Option<Wish>> = const { RefCell::new(None) };
    /// The connection of which this thread runs a statement; null if it is not known.
    static RUNNING: Cell<*mut ffi::sqlite3> = const { Cell::new(ptr::null_mut()) };
}

/// Leaves the wish of `log` to the handler that the engine calls next on this thread.
pub(crate) fn wish(log: Weak<Mutex<dyn Wishes>>) {
    let db = running();
    // A thread that ends calls no handler.
    let _ = WISH.try_with(|last| last.replace(Some(Wish { db, log })));
}

/// Discards the wish of this thread.
pub(crate) fn discard_wish() {
    let _ = WISH.try_with(RefCell::take);
}

/// Returns the log of this thread's wish, unless it is that of another connection than `db`,
/// and discards the wish.
fn take_wish(db: *mut ffi::sqlite3) -> Option<Arc<Mutex<dyn Wishes>>> {
    let wish = WISH.try_with(RefCell::take).ok().flatten()?;
    let may_be_of_db = wish.db.is_null() || wish.db == db;
    wish.log.upgrade().filter(|_| may_be_of_db)
}

/// The connection of which this thread runs a statement; null if it is not known.
fn running() -> *mut ffi::sqlite3 {
    RUNNING.try_with(Cell::get).unwrap_or(ptr::null_mut())
}

/// Runs a statement of `db` by `run`, which returns before `db` is closed.
pub(crate) fn while_running<T>(db: NonNull<ffi::sqlite3>, run: impl FnOnce() -> T) -> T {
    /// Also if `run` panics.
    struct Reset(*mut ffi::sqlite3);
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = RUNNING.try_with(|running| running.set(self.0));
        }
    }
    let before = RUNNING.try_with(|running| running.replace(db.as_ptr()));
    let _reset = Reset(before.unwrap_or(ptr::null_mut()));
    run()
}

/// True if the connection that runs a statement on this thread has a timeout and no
/// transaction, so that it calls its busy handler; `None` if the connection is not known.
pub(crate) fn would_wait() -> Option<bool> {
    let db = Some(running()).filter(|db| !db.is_null())?;
    // SAFETY: the connection runs a statement, so it is open, and stays so in this call.
    let waiting = unsafe { waiting_of(db) };
    let has_timeout = waiting.is_some_and(|waiting| waiting.timeout.load(Ordering::Relaxed) > 0);
    // SAFETY: as above.
    Some(has_timeout && unsafe { ffi::sqlite3_txn_state(db, ptr::null()) } == ffi::SQLITE_TXN_NONE)
}

/// What the handler of a connection waits by. The connection owns it, and frees it when it is
/// closed.
struct Waiting {
    /// How long a statement waits in all; microseconds.
    timeout: AtomicU64,
    /// How long the statement that runs has waited, with its tries in between; microseconds.
    waited: AtomicU64,
    /// When the last wait ended; microseconds since `opened`.
    ended: AtomicU64,
    opened: Instant,
}

/// Lets each statement of `db` wait for `timeout` in all; zero is not to wait. It replaces the
/// busy handler that `db` has. Returns a result code.
///
/// # Safety
/// `db` is open.
pub(crate) unsafe fn set_timeout(db: NonNull<ffi::sqlite3>, timeout: Duration) -> c_int {
    let db = db.as_ptr();
    let micros = micros(timeout);
    // SAFETY: `db` is open, and stays open in this call.
    let waiting = unsafe { waiting_of(db) };
    if let Some(waiting) = waiting {
        waiting.timeout.store(micros, Ordering::Relaxed);
    }
    if micros == 0 {
        // SAFETY: `db` is open.
        return unsafe { ffi::sqlite3_busy_handler(db, None, ptr::null_mut()) };
    }
    if waiting.is_none() {
        let waiting = Box::into_raw(Box::new(Waiting {
            timeout: AtomicU64::new(micros),
            waited: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            opened: Instant::now(),
        }));
        // SAFETY: `db` is open. The connection owns the value, also if this fails.
        let code = unsafe {
            ffi::sqlite3_set_clientdata(db, NAME.as_ptr(), waiting.cast(), Some(destroy))
        };
        if code != ffi::SQLITE_OK {
            return code;
        }
    }
    // SAFETY: `db` is open, and a connection that calls its handler is there.
    unsafe { ffi::sqlite3_busy_handler(db, Some(wait), db.cast()) }
}

/// What `db` waits by; `None` without a timeout, and once `db` is closed, though statements of
/// it may be left.
///
/// # Safety
/// `db` is there for `'a`, and is not closed within it.
unsafe fn waiting_of<'a>(db: *mut ffi::sqlite3) -> Option<&'a Waiting> {
    // SAFETY: `db` is there; the name ends with a zero.
    let waiting = unsafe { ffi::sqlite3_get_clientdata(db, NAME.as_ptr()) };
    // SAFETY: null, or what `set_timeout` has made, which stays until `db` is closed.
    unsafe { waiting.cast::<Waiting>().as_ref() }
}

unsafe extern "C" fn destroy(waiting: *mut c_void) {
    // SAFETY: what `set_timeout` has made; the connection does not use it any more.
    drop(unsafe { Box::from_raw(waiting.cast::<Waiting>()) });
}

/// The busy handler: not 0 if the engine is to try again.
unsafe extern "C" fn wait(db: *mut c_void, count: c_int) -> c_int {
    let db = db.cast::<ffi::sqlite3>();
    guarded(0, || {
        // SAFETY: the connection calls this, with its mutex held.
        let waiting = unsafe { waiting_of(db) };
        // SAFETY: the connection is there for as long as it runs this.
        let is_interrupted = || unsafe { ffi::sqlite3_is_interrupted(db) != 0 };
        let wait = |waiting: &Waiting| waiting.wait(count, take_wish(db), &is_interrupted);
        c_int::from(waiting.is_some_and(wait))
    })
}

impl Waiting {
    /// Waits, for the `count`th time in a statement, of which the first is 0, and for `wish` if
    /// there is one; true if the engine is to try again.
    fn wait(
        &self,
        count: c_int,
        wish: Option<Arc<Mutex<dyn Wishes>>>,
        is_interrupted: &dyn Fn() -> bool,
    ) -> bool {
        let began = Instant::now();
        let timeout = self.timeout.load(Ordering::Relaxed);
        let waited = match count {
            0 => 0,
            _ => (self.waited.load(Ordering::Relaxed)).saturating_add(self.last_try(began)),
        };
        let left = Duration::from_micros(timeout.saturating_sub(waited));
        let tries_again = match wish {
            Some(wish) => {
                let outcome = wait_for(&wish, began, left, is_interrupted);
                wish.lock().unpoison().end(outcome);
                outcome != Outcome::GaveUp
            }
            None if left.is_zero() || is_interrupted() => false,
            None => {
                let step = u32::try_from(count).map_or(1, |count| count.saturating_add(1));
                let sleep = FIRST_SLEEP.saturating_mul(step).min(LOOK_FOR_INTERRUPT);
                thread::sleep(sleep.min(left));
                true
            }
        };
        let ended = Instant::now();
        let taken = micros(ended.duration_since(began));
        self.waited
            .store(waited.saturating_add(taken), Ordering::Relaxed);
        let since_opened = micros(ended.duration_since(self.opened));
        self.ended.store(since_opened, Ordering::Relaxed);
        tries_again
    }

    /// How long the try since the last wait has taken, until `now`. The engine counts on where a
    /// statement is prepared, which may be long after that wait.
    fn last_try(&self, now: Instant) -> u64 {
        let since_opened = micros(now.duration_since(self.opened));
        let taken = since_opened.saturating_sub(self.ended.load(Ordering::Relaxed));
        taken.min(micros(LONGEST_TRY))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Waits for `wish` since `began`, as long as there is time `left`. The engine tries once more
/// when that is over.
fn wait_for(
    wish: &Mutex<dyn Wishes>,
    began: Instant,
    left: Duration,
    is_interrupted: &dyn Fn() -> bool,
) -> Outcome {
    if left.is_zero() {
        return Outcome::GaveUp;
    }
    loop {
        if is_interrupted() {
            return Outcome::Interrupted;
        }
        let rest = left.saturating_sub(began.elapsed());
        let until = Instant::now() + rest.min(LOOK_FOR_INTERRUPT);
        // The lock is released between two waits: another thread may close the log of a stale
        // wish.
        if rest.is_zero() || wish.lock().unpoison().wait(until) {
            return Outcome::Retry;
        }
    }
}
