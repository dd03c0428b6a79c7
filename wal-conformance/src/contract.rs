//! Checks, at every call, the rules that hold for every case: who may do what
//! while holding which lock, and what has to be synced before.
//!
//! The ledger knows who holds what. A backend that grants a lock against it,
//! or refuses one that nobody holds, breaks rule 3 of the coordination
//! contract; a protocol that calls without the lock it needs breaks its own.

use crate::calls::{Call, Which};
use wal_core::index::{IndexBlock, IndexHeader};
use wal_core::protocol::Synchronous;
use wal_core::testing::index;
use wal_core::types::{Lock, LockMode, ReadSlot};

/// A single lock in somebody's hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hold {
    user: usize,
    single: usize,
    mode: LockMode,
}

#[derive(Clone, Copy, Debug)]
struct User {
    synchronous: Synchronous,
    /// Restarts the log without Checkpoint, as stock SQLite does.
    like_stock: bool,
    /// The log was synced since Checkpoint was taken.
    log_synced: bool,
}

/// Who holds what, and what was published and synced.
#[derive(Default)]
pub(super) struct Ledger {
    holds: Vec<Hold>,
    users: Vec<User>,
    header: Option<IndexHeader>,
    backfilled: u32,
    /// The database file was written since its last sync.
    database_dirty: bool,
    /// The user that left as the last one.
    owner: Option<usize>,
    /// Several threads are at work, so what is found in the index cannot be
    /// laid to the user that calls next.
    crowded: bool,
}

fn singles(lock: Lock) -> std::ops::Range<usize> {
    let (first, count) = lock.span();
    first..first + count
}

impl Ledger {
    /// Enters a user, and gives its number.
    pub(super) fn enter(&mut self, synchronous: Synchronous, like_stock: bool) -> usize {
        self.users.push(User {
            synchronous,
            like_stock,
            log_synced: false,
        });
        self.users.len() - 1
    }

    /// Says that the backfilled count was changed by nobody that is watched.
    pub(super) fn found_count(&mut self, frames: u32) {
        self.backfilled = frames;
    }

    /// Says that `user` left as the last one, and owns the database.
    pub(super) fn owns(&mut self, user: usize) {
        self.owner = Some(user);
    }

    /// Says that the header was stored by nobody that is watched.
    pub(super) fn found_header(&mut self, header: IndexHeader) {
        self.header = Some(header);
    }

    /// Says that several threads are at work from now on.
    pub(super) fn crowd(&mut self) {
        self.crowded = true;
    }

    /// True if nobody holds any lock.
    pub(super) fn is_quiet(&self) -> bool {
        self.holds.is_empty()
    }

    fn conflicts(&self, lock: Lock, mode: LockMode) -> bool {
        self.holds.iter().any(|hold| {
            singles(lock).contains(&hold.single)
                && (mode == LockMode::Exclusive || hold.mode == LockMode::Exclusive)
        })
    }

    /// What the backend answered to a try must be what the ledger says.
    pub(super) fn tried(&mut self, user: usize, lock: Lock, mode: LockMode, granted: bool) {
        assert_eq!(
            granted,
            !self.conflicts(lock, mode),
            "user {user} tried {lock} {mode:?}; held are {:?}",
            self.holds
        );
        if granted {
            self.grant(user, lock, mode);
        }
    }

    /// As [`Ledger::tried`], for a slot whose mark is `mark` and was wanted to
    /// be `wanted`.
    pub(super) fn tried_mark(&mut self, user: usize, slot: ReadSlot, granted: bool, same: bool) {
        let lock = Lock::Read(slot);
        let expected = same && !self.conflicts(lock, LockMode::Shared);
        assert_eq!(
            granted, expected,
            "user {user} tried {lock} by its mark (the mark was right: {same}); held are {:?}",
            self.holds
        );
        if granted {
            self.grant(user, lock, LockMode::Shared);
        }
    }

    /// A backend may refuse to raise a mark; it raises none under a second holder.
    pub(super) fn tried_to_raise(&mut self, user: usize, slot: ReadSlot, raised: bool) {
        let is_in_slot = |hold: &&Hold| singles(Lock::Read(slot)).contains(&hold.single);
        let holds: Vec<&Hold> = self.holds.iter().filter(is_in_slot).collect();
        let is_alone =
            matches!(holds[..], [hold] if hold.user == user && hold.mode == LockMode::Shared);
        assert!(
            is_alone || !raised,
            "user {user} raised the mark of {slot:?}, which {holds:?} hold"
        );
    }

    fn grant(&mut self, user: usize, lock: Lock, mode: LockMode) {
        let held = singles(lock).map(|single| Hold { user, single, mode });
        self.holds.extend(held);
        if lock == Lock::Checkpoint {
            self.users[user].log_synced = false;
        }
    }

    /// A lock goes back.
    pub(super) fn released(&mut self, user: usize, lock: Lock, mode: LockMode) {
        for single in singles(lock) {
            let hold = Hold { user, single, mode };
            let place = self.holds.iter().position(|&held| held == hold);
            self.demand(
                place.is_some(),
                &format!("user {user} released {lock} {mode:?}, which it did not hold"),
            );
            if let Some(place) = place {
                self.holds.swap_remove(place);
            }
        }
    }

    fn holds(&self, user: usize, lock: Lock, mode: LockMode) -> bool {
        singles(lock).all(|single| self.holds.contains(&Hold { user, single, mode }))
    }

    /// A rule that is broken while a user dies is not told: it would end the
    /// whole test run.
    fn demand(&self, kept: bool, rule: &str) {
        assert!(kept || std::thread::panicking(), "{rule}");
    }

    fn demand_held(&self, user: usize, lock: Lock, mode: LockMode, act: &str) {
        self.demand(
            self.holds(user, lock, mode),
            &format!("user {user} {act} without {lock} {mode:?}"),
        );
    }

    /// Checks that `user` may make `call` with the locks it holds.
    pub(super) fn check(&mut self, user: usize, call: Call) {
        use LockMode::Exclusive;
        match call {
            Call::Grow(_) => self.demand_held(user, Lock::Write, Exclusive, "grew the index"),
            Call::SetMark(slot, mark) => {
                self.demand_held(user, Lock::Read(slot), Exclusive, "stored a mark");
                self.demand(slot != ReadSlot::DATABASE || mark == 0, "mark 0 is not 0");
            }
            Call::Remove | Call::RemoveLog => self.demand(
                self.owner == Some(user),
                &format!("user {user} removed a file under other users"),
            ),
            // The owner has the log for itself.
            Call::SetLen(Which::Log, _) if self.owner == Some(user) => {}
            Call::Write {
                file: Which::Log, ..
            }
            | Call::SetLen(Which::Log, _) => {
                self.demand_held(user, Lock::Write, Exclusive, "wrote the log");
            }
            Call::Write {
                file: Which::Database,
                ..
            }
            | Call::SetLen(Which::Database, _) => {
                self.check_database_write(user);
            }
            Call::Read {
                file: Which::Log, ..
            } => self.demand(
                self.may_read_log(user),
                &format!("user {user} read the log without a lock that keeps it"),
            ),
            Call::Sync(Which::Log) => self.users[user].log_synced = true,
            Call::Sync(Which::Database) => self.database_dirty = false,
            _ => {}
        }
    }

    fn check_database_write(&mut self, user: usize) {
        let act = "wrote the database";
        self.demand_held(user, Lock::Checkpoint, LockMode::Exclusive, act);
        let zero = Lock::Read(ReadSlot::DATABASE);
        self.demand_held(user, zero, LockMode::Exclusive, act);
        let User {
            synchronous,
            log_synced,
            ..
        } = self.users[user];
        self.demand(
            log_synced || synchronous == Synchronous::Off,
            &format!("user {user} wrote the database before the log was synced"),
        );
        self.database_dirty = true;
    }

    fn may_read_log(&self, user: usize) -> bool {
        let reads = |slot| self.holds(user, Lock::Read(slot), LockMode::Shared);
        let alone = |lock| self.holds(user, lock, LockMode::Exclusive);
        // A log that is not all in the database file does not begin anew, and
        // Read 0 keeps it so.
        let unfinished = |header: IndexHeader| self.backfilled < header.max_frame();
        let kept_by_zero = reads(ReadSlot::DATABASE) && self.header.is_some_and(unfinished);
        kept_by_zero
            || ReadSlot::MARKED.into_iter().any(reads)
            || alone(Lock::Checkpoint)
            || alone(Lock::Write)
    }

    /// Looks at what `user` has published since the last call of anybody.
    pub(super) fn observe(&mut self, user: usize, block_zero: Option<&IndexBlock>) {
        let Some(block) = block_zero else {
            return;
        };
        let Some(header) = index::header(block) else {
            return;
        };
        if self.crowded {
            let goes_back = |old: IndexHeader| {
                old.salts() == header.salts() && old.max_frame() > header.max_frame()
            };
            self.demand(!self.header.is_some_and(goes_back), "the header went back");
            self.header = Some(header);
            return;
        }
        if self.header != Some(header) {
            self.check_header(user, &header);
            self.header = Some(header);
        }
        let backfilled = index::backfilled(block);
        if self.backfilled != backfilled {
            self.check_backfilled(user, backfilled, &header);
            self.backfilled = backfilled;
        }
    }

    fn check_header(&self, user: usize, new: &IndexHeader) {
        use LockMode::{Exclusive, Shared};
        self.demand_held(user, Lock::Write, Exclusive, "stored the header");
        let recovers = self.holds(user, Lock::Recover, Exclusive);
        if recovers {
            self.demand_held(user, Lock::Checkpoint, Exclusive, "recovered");
            return;
        }
        let Some(old) = self.header.filter(|_| new.max_frame() == 0) else {
            return;
        };
        let act = "restarted the log";
        self.demand_held(user, Lock::ReadMarks, Exclusive, act);
        // Either keeps a checkpointer from copying meanwhile.
        if self.users[user].like_stock {
            self.demand_held(user, Lock::Read(ReadSlot::DATABASE), Shared, act);
        } else {
            self.demand_held(user, Lock::Checkpoint, Exclusive, act);
        }
        self.demand(new.salts() != old.salts(), "a restart kept the salts");
        self.demand(
            !self.database_dirty || self.users[user].synchronous == Synchronous::Off,
            "the log was restarted before the database was synced",
        );
    }

    fn check_backfilled(&self, user: usize, new: u32, header: &IndexHeader) {
        use LockMode::Exclusive;
        // The holder of Checkpoint replaces a count that is none of this log, and takes
        // back one whose pages it could not sync.
        let of_this_log = self.backfilled <= header.max_frame();
        let checkpoints = self.holds(user, Lock::Checkpoint, Exclusive);
        if new < self.backfilled && checkpoints && new == 0 {
            return;
        }
        if new < self.backfilled && (of_this_log || !checkpoints) {
            return self.demand_held(
                user,
                Lock::Write,
                Exclusive,
                "took the backfilled count back",
            );
        }
        let act = "raised the backfilled count";
        self.demand_held(user, Lock::Checkpoint, Exclusive, act);
        self.demand_held(user, Lock::Read(ReadSlot::DATABASE), Exclusive, act);
        let synced = !self.database_dirty || self.users[user].synchronous == Synchronous::Off;
        self.demand(
            synced || new < header.max_frame(),
            "a complete backfill was published before the database was synced",
        );
    }
}
