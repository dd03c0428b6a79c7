//! Owns the one ordered trace of a scene, and the moment at which a test
//! steps in.
//!
//! Every call of every user passes the director before it happens. The
//! director writes it down, has the contract checked, and, if a test asked for
//! this very call, lets the test's closure run first: so a race between two
//! users is forced in one thread, in the same way each time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard};

use crate::calls::Call;
use crate::contract::Ledger;
use wal_core::index::IndexBlock;
use wal_core::sync::Unpoison;

/// A call in the trace, and who made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) user: usize,
    pub(super) call: Call,
}

/// What becomes of the call at which a test stepped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// It happens.
    GoOn,
    /// It fails with an I/O error, without an effect.
    Fail,
    /// It is a write, and fails after so many bytes.
    FailAfter(usize),
    /// The user dies before it happens. Its locks are freed, as the system
    /// frees those of a killed process.
    Die,
}

/// What a dying user unwinds with.
struct Death;

type Predicate = Box<dyn FnMut(&Call) -> bool + Send>;
type Action = Box<dyn FnOnce() -> Then + Send>;

/// The disk of a scene, which may become full.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreeSpace {
    /// How many bytes there is room for.
    pub(super) bytes: u64,
    /// Whether that is told to those who ask.
    pub(super) is_told: bool,
}

struct Hook {
    user: usize,
    at: Predicate,
    action: Action,
}

#[derive(Default)]
struct State {
    trace: Vec<Entry>,
    ledger: Ledger,
    hook: Option<Hook>,
    /// `None` if there is room for everything.
    free_space: Option<FreeSpace>,
}

/// Sees every call of every user of a scene.
#[derive(Default)]
pub(super) struct Director(Mutex<State>);

impl Director {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unpoison()
    }

    /// Writes `call` of `user` down, checks what it left in `block_zero`
    /// before, and lets the test step in.
    pub(super) fn before(&self, user: usize, call: Call, block_zero: Option<&IndexBlock>) -> Then {
        let action = {
            let mut state = self.state();
            state.ledger.observe(user, block_zero);
            state.trace.push(Entry { user, call });
            let here = state
                .hook
                .as_mut()
                .is_some_and(|hook| hook.user == user && (hook.at)(&call));
            if here { state.hook.take() } else { None }
        };
        let then = action.map_or(Then::GoOn, |hook| (hook.action)());
        self.state().ledger.check(user, call);
        then
    }

    /// Runs `act` on what is known of the locks. Nothing in it blocks, so the
    /// ledger and the backend's locks change together.
    pub(super) fn with_ledger<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        act(&mut self.state().ledger)
    }

    /// Lets the disk have so much room from now on.
    pub(super) fn set_free_space(&self, space: Option<FreeSpace>) {
        self.state().free_space = space;
    }

    /// How much room there is, for those who ask.
    pub(super) fn told_free_space(&self) -> Option<u64> {
        let space = self.state().free_space.filter(|space| space.is_told);
        space.map(|space| space.bytes)
    }

    /// Takes room for `wanted` bytes, or for as many as there is room for.
    pub(super) fn take_space(&self, wanted: u64) -> u64 {
        match &mut self.state().free_space {
            None => wanted,
            Some(space) => {
                let taken = wanted.min(space.bytes);
                space.bytes -= taken;
                taken
            }
        }
    }

    /// Makes room for `bytes` more.
    pub(super) fn free(&self, bytes: u64) {
        if let Some(space) = &mut self.state().free_space {
            space.bytes += bytes;
        }
    }

    /// Runs `action` just before the first call of `user` that `at` accepts.
    pub(super) fn step_in(
        &self,
        user: usize,
        at: impl FnMut(&Call) -> bool + Send + 'static,
        action: impl FnOnce() -> Then + Send + 'static,
    ) {
        self.state().hook = Some(Hook {
            user,
            at: Box::new(at),
            action: Box::new(action),
        });
    }

    /// Forgets what [`Director::step_in`] asked for; true if it has happened.
    pub(super) fn stepped_in(&self) -> bool {
        self.state().hook.take().is_none()
    }

    /// The calls so far; the trace begins anew.
    pub(super) fn take_trace(&self) -> Vec<Entry> {
        std::mem::take(&mut self.state().trace)
    }
}

/// Ends the life of the user that runs on this thread.
pub(super) fn die() -> ! {
    resume_unwind(Box::new(Death))
}

/// Runs `life`; `None` if its user died ([`Then::Die`]).
pub(super) fn until_death<T>(life: impl FnOnce() -> T) -> Option<T> {
    let died = |payload: Box<dyn Any + Send>| {
        if payload.downcast_ref::<Death>().is_none() {
            resume_unwind(payload);
        }
    };
    catch_unwind(AssertUnwindSafe(life)).map_err(died).ok()
}

/// Runs `scenario` once for each call that it makes: it is given a number *n*,
/// steps in at the *n*-th call, and tells whether that call came. At least one
/// must come.
pub(super) fn at_every_call(mut scenario: impl FnMut(usize) -> bool) {
    let mut n = 0;
    while scenario(n) {
        n += 1;
        assert!(n < 2000, "the operation does not end");
    }
    assert!(n > 0, "the operation made no call at all");
}

/// Accepts the `n`-th call it sees, from 0.
pub(super) fn nth(mut n: usize) -> impl FnMut(&Call) -> bool + Send + 'static {
    move |_| {
        let here = n == 0;
        n = n.wrapping_sub(1);
        here
    }
}
