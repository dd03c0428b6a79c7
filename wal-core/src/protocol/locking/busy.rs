//! What an operation does while somebody else holds a lock that it needs.
//!
//! # Protocol
//! Locks are only ever tried. Between two tries an operation sleeps: for Write
//! in line with others ([`crate::protocol::locking::queued_write`]), for the end of readers, which is not
//! told, a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use crate::coordination::WalCoordination;
use crate::error::{Error, Result};
use crate::protocol::handle::Wal;
use crate::protocol::locking::delayed_release::Reclaim;
use crate::protocol::locking::guard::LockGuard;
use crate::protocol::locking::pause::deadline_after;
use crate::protocol::locking::write_note::SelfWait;
use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::types::{Lock, LockMode};
use crate::wait::{EventCount, POLL_INTERVAL};

/// How soon a cancellation is noticed by who sleeps.
const LOOK_FOR_CANCEL: Duration = Duration::from_millis(10);

/// How long it sleeps before it looks for the second time.
const FIRST_LOOK: Duration = Duration::from_micros(50);

/// Ends waits from another thread. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every operation that waits with this switch, now or later, answer
    /// [`Error::Cancelled`], within about ten milliseconds.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Turns the switch off again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// True if the switch is on.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What to do while a lock is busy (`sqlite3_busy_handler`).
#[derive(Clone, Debug)]
pub struct BusyHandler {
    answer: Answer,
    cancel: Option<Cancel>,
}

#[derive(Clone)]
enum Answer {
    Timeout(Duration),
    Ask(Arc<dyn Fn(Lock, u32) -> bool + Send + Sync>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Timeout(timeout) => write!(f, "Timeout({timeout:?})"),
            Answer::Ask(_) => f.write_str("Ask(..)"),
        }
    }
}

impl BusyHandler {
    /// Gives up at once.
    pub const FAIL: BusyHandler = BusyHandler::timeout(Duration::ZERO);

    /// Waits, and gives up after `timeout`.
    pub const fn timeout(timeout: Duration) -> Self {
        BusyHandler {
            answer: Answer::Timeout(timeout),
            cancel: None,
        }
    }

    /// Asks `again` after each failed try, with the lock that is busy and the
    /// number of tries so far: true is to try again. The waiting is up to
    /// `again`; it is called without a lock of the library's held that others
    /// wait for, except those that the operation names.
    pub fn ask(again: impl Fn(Lock, u32) -> bool + Send + Sync + 'static) -> Self {
        BusyHandler {
            answer: Answer::Ask(Arc::new(again)),
            cancel: None,
        }
    }

    /// The same, and gives up with [`Error::Cancelled`] when `cancel` is on.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: &Cancel) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }
}

impl From<Duration> for BusyHandler {
    fn from(timeout: Duration) -> Self {
        BusyHandler::timeout(timeout)
    }
}

/// One operation that waits: its deadline runs from the beginning, whatever
/// it waits for.
pub(in crate::protocol) struct Waiter {
    handler: BusyHandler,
    deadline: Instant,
    /// The longest sleep between two looks, where it is shorter than for other operations.
    look: Option<Duration>,
    tries: u32,
    pub(super) for_itself: SelfWait,
}

impl Waiter {
    pub(in crate::protocol) fn new(handler: BusyHandler) -> Self {
        let timeout = match handler.answer {
            Answer::Timeout(timeout) => timeout,
            Answer::Ask(_) => Duration::MAX,
        };
        Waiter {
            handler,
            deadline: deadline_after(timeout),
            look: None,
            tries: 0,
            for_itself: SelfWait::default(),
        }
    }

    /// A waiter for a part of the operation: it gives up after `time` at the latest, and looks at
    /// least each `look`. A handler that asks decides by itself.
    pub(in crate::protocol) fn part(&self, time: Duration, look: Duration) -> Self {
        Waiter {
            handler: self.handler.clone(),
            deadline: self.deadline.min(deadline_after(time)),
            look: Some(look),
            tries: 0,
            for_itself: SelfWait::default(),
        }
    }

    /// True if whoever is asked waits by itself.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.handler.answer, Answer::Ask(_))
    }

    /// True if it gives up at once.
    pub(super) fn is_hasty(&self) -> bool {
        matches!(self.handler.answer, Answer::Timeout(Duration::ZERO))
    }

    pub(in crate::protocol) fn check_cancelled(&self) -> Result<()> {
        match &self.handler.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// Sleeps for `pause` or less, or asks; false if it is time to give up.
    pub(in crate::protocol) fn pause(&mut self, lock: Lock, pause: Duration) -> Result<bool> {
        self.again(lock, |until| {
            thread::sleep(pause.min(until.saturating_duration_since(Instant::now())));
        })
    }

    /// Lets `sleep` wait until the given moment or less, or asks; false if it
    /// is time to give up.
    pub(in crate::protocol) fn again(
        &mut self,
        lock: Lock,
        sleep: impl FnOnce(Instant),
    ) -> Result<bool> {
        self.check_cancelled()?;
        self.tries = self.tries.saturating_add(1);
        match &self.handler.answer {
            Answer::Ask(again) => Ok(again(lock, self.tries)),
            Answer::Timeout(_) => {
                let now = Instant::now();
                if now >= self.deadline {
                    return Ok(false);
                }
                let until = match self.handler.cancel {
                    Some(_) => self.deadline.min(now + LOOK_FOR_CANCEL),
                    None => self.deadline,
                };
                sleep(self.look.map_or(until, |look| until.min(now + look)));
                Ok(true)
            }
        }
    }
}

impl<C: WalCoordination> Wal<C> {
    /// Takes `lock` exclusively; `None` if it stayed busy until the waiter
    /// gave up.
    pub(in crate::protocol) fn wait_for_lock(
        self: &Arc<Self>,
        lock: Lock,
        waiter: &mut Waiter,
    ) -> Result<Option<LockGuard<C>>> {
        self.observe_wait(lock, waiter, |waiter| match lock {
            Lock::Write => self.wait_for_write(waiter),
            _ => look_until_free(self, lock, waiter),
        })
    }

    /// As [`Wal::wait_for_lock`].
    ///
    /// # Errors
    /// [`Error::Busy`] or [`Error::OwnWrite`] if it stayed busy until the waiter gave up.
    pub(in crate::protocol) fn lock_or_busy(
        self: &Arc<Self>,
        lock: Lock,
        waiter: &mut Waiter,
    ) -> Result<LockGuard<C>> {
        let held = self.wait_for_lock(lock, waiter)?;
        held.ok_or_else(|| self.busy_after(lock, waiter))
    }

    /// Counts and tells how long `wait` has waited for `lock`.
    #[cfg_attr(not(feature = "observe"), allow(clippy::unused_self))]
    pub(in crate::protocol) fn observe_wait<T>(
        &self,
        lock: Lock,
        waiter: &mut Waiter,
        wait: impl FnOnce(&mut Waiter) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        #[cfg(feature = "observe")]
        let (began, tries) = (Instant::now(), waiter.tries);
        let waited_for = wait(waiter)?;
        #[cfg(feature = "observe")]
        if waiter.tries > tries {
            let (waited, in_vain) = (began.elapsed(), waited_for.is_none());
            observe!(
                self,
                Waited {
                    lock,
                    waited,
                    in_vain
                }
            );
        }
        #[cfg(not(feature = "observe"))]
        let _ = lock;
        Ok(waited_for)
    }

    /// Notifies of `event`, and wakes the waiters that may sleep on it.
    pub(in crate::protocol) fn notify(&self, event: &EventCount) {
        if event.notify() {
            self.coordination().wake(event.word());
        }
    }

    /// Until when a waiter sleeps at most, where a foreign peer may do what it waits for:
    /// such a peer wakes no waiter.
    pub(in crate::protocol) fn before_foreign_peers(until: Instant) -> Instant {
        match C::HAS_FOREIGN_PEERS {
            true => until.min(Instant::now() + POLL_INTERVAL),
            false => until,
        }
    }

    /// Sleeps until `word` is not `seen` any more, or now and then if there is
    /// nothing to sleep on.
    pub(in crate::protocol) fn sleep(&self, on: Option<(&AtomicU32, u32)>, until: Instant) {
        match on {
            Some((word, seen)) => self.coordination().sleep(word, seen, until),
            None => {
                thread::sleep(POLL_INTERVAL.min(until.saturating_duration_since(Instant::now())))
            }
        }
    }
}

fn look_until_free<C: WalCoordination>(
    wal: &Arc<Wal<C>>,
    lock: Lock,
    waiter: &mut Waiter,
) -> Result<Option<LockGuard<C>>> {
    let mut tried = wal.try_lock_or_reclaim(lock, &mut Reclaim::default())?;
    // Most holders release within less than the longest pause.
    let mut pause = FIRST_LOOK;
    while tried.is_none() {
        wal.reclaim(lock);
        if !waiter.pause(lock, pause)? {
            break;
        }
        pause = POLL_INTERVAL.min(pause * 2);
        tried = wal.try_lock(lock, LockMode::Exclusive)?;
    }
    Ok(tried)
}
