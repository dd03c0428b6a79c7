//! What a connection asks of the extension beside the queue, all of it off by default: by a
//! parameter of the URI by which it is opened, or by a variable of the environment.
#![allow(unsafe_code)] // SQLite reads the parameters of a URI.

use std::ffi::{CStr, c_char, c_int};

use crate::api::{Api, TxnState};
use crate::reservation::GetAutocommit;

/// The options of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Commits share their syncs ([`crate::group_commit`]).
    pub(crate) group_commit: bool,
    /// The address of the name by which SQLite opens the log of the connection; 0 if it is
    /// unknown. It identifies the connection and is not dereferenced.
    pub(crate) log_name: usize,
    /// A transaction that was refused reserves `WRITE` ([`crate::reservation`]).
    pub(crate) reserve: Option<GetAutocommit>,
    /// `sqlite3_txn_state`, from SQLite 3.34 on.
    pub(crate) txn_state: Option<TxnState>,
}

/// The name of the parameter, and that of the variable.
const GROUP_COMMIT: (&CStr, &str) = (c"walqueue_group", "WALQUEUE_GROUP");
const RESERVE: (&CStr, &str) = (c"walqueue_reserve", "WALQUEUE_RESERVE");

impl Options {
    /// The options that the environment sets. It is read once, since another thread may change it later.
    pub(crate) fn of_environment(api: &Api) -> Self {
        let is_on = |(_, variable)| std::env::var(variable).is_ok_and(|value| is_yes(&value));
        Options {
            group_commit: is_on(GROUP_COMMIT),
            log_name: 0,
            reserve: reserve(api, is_on(RESERVE)),
            txn_state: api.txn_state,
        }
    }

    /// The options that the URI of a database file sets, and these where it sets none.
    ///
    /// # Safety
    /// `name` is the one that SQLite passes to `xOpen` for a database file, or is made by
    /// `sqlite3_create_filename`: what lies around it in memory is read.
    pub(crate) unsafe fn with_uri(self, api: &Api, name: *const c_char) -> Self {
        let is_on = |(parameter, _): (&CStr, &str), default: bool| {
            // SAFETY: the caller's promise.
            let value =
                unsafe { (api.uri_boolean)(name, parameter.as_ptr(), c_int::from(default)) };
            value != 0
        };
        let group_commit = is_on(GROUP_COMMIT, self.group_commit);
        let filename_wal = api.filename_wal.filter(|_| group_commit);
        Options {
            group_commit,
            // SAFETY: the caller's promise.
            log_name: filename_wal.map_or(0, |of| unsafe { of(name) }.addr()),
            reserve: reserve(api, is_on(RESERVE, self.reserve.is_some())),
            txn_state: self.txn_state,
        }
    }
}

/// What a reservation needs, if it is asked for. A SQLite that is built without mutexes has none:
/// another thread could not end it.
fn reserve(api: &Api, is_on: bool) -> Option<GetAutocommit> {
    // SAFETY: it has no conditions.
    let is_threadsafe = is_on && (unsafe { (api.threadsafe)() }) != 0;
    is_threadsafe.then_some(api.get_autocommit)
}

/// The words that SQLite takes for a true parameter of a URI.
fn is_yes(value: &str) -> bool {
    let words = ["1", "yes", "true", "on"];
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_is_true_by_the_words_of_a_uri() {
        assert!(["1", "on", "YES", "True"].into_iter().all(is_yes));
        assert!(!["", "0", "off", "no", "2x"].into_iter().any(is_yes));
    }
}
