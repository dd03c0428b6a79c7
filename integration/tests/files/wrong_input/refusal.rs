//! What every refusal is held to.

use std::path::Path;

use integration::folder::FolderState;
use integration::reading::Opener;
use wal::Error;

/// What is expected of the error, beside that it comes.
pub(crate) struct Refusal {
    pub(crate) is_expected: fn(&Error) -> bool,
    /// The name of the file that the message has to give.
    pub(crate) names: &'static str,
    /// What the message has to say: what is wrong, and what to do.
    pub(crate) says: &'static [&'static str],
}

impl Refusal {
    /// Has `make` fill an empty folder and tell what is to be opened there;
    /// every way to open it must be refused like this, and leave the folder as
    /// it was to the last bit.
    pub(crate) fn holds(&self, make: impl Fn(&Path) -> String) {
        self.holds_but_for(&[], make);
    }

    /// As [`holds`](Self::holds), for what shows itself only when the log is
    /// read: the shared backend has made the files named in `made` by then.
    pub(crate) fn holds_but_for(&self, made: &[&str], make: impl Fn(&Path) -> String) {
        for opener in Opener::ALL {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(make(folder.path()));
            let before = FolderState::of(folder.path()).unwrap();
            let error = opener.read(&path).unwrap_err();
            self.check(&error);
            let after = FolderState::of(folder.path()).unwrap();
            let mut changes = before.changes(&after);
            changes.retain(|change| !made.iter().any(|name| *change == format!("{name} is new")));
            assert_eq!(changes, [""; 0], "{opener:?}: {error}");
        }
    }

    pub(crate) fn check(&self, error: &Error) {
        assert!((self.is_expected)(error), "{error:?}");
        let message = error.to_string();
        // The path comes first, so that its last part ends with the colon.
        let named = format!("/{}:", self.names);
        assert!(message.contains(&named), "no {named} in: {message}");
        for part in self.says {
            assert!(message.contains(part), "no `{part}` in: {message}");
        }
    }
}
