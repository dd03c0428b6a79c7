//! Reports that the log of a database was written, by the file events of Linux (inotify).
//!
//! # Protocol
//! Stock SQLite writes frames to `-wal` by calls, which are events, then publishes them in the
//! mapped `-shm`, which is none, then releases `WRITE`. So an event comes before its commit can
//! be seen. A user of this looks at the header after an event, and again, with growing pauses,
//! until it has seen `WRITE` free after the event: then each commit whose frames were reported
//! is published, and the next event can be waited for.
//!
//! This library may store frames to a mapped log, which is no event, and notifies the waiters in
//! the side file instead. Events can be lost by the system, and a network file system has none of
//! other machines. So a user looks once in a while without an event, too.
#![allow(unsafe_code)] // A descriptor is said to be one of inotify.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::beside;
use super::low_numbers::{MayCarry, open_above};

/// Events of the directory: a file appears under a name, or leaves it.
const OF_DIRECTORY: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Waits for writes to the log of a database. It needs no lock, and changes no file.
///
/// A child that is forked must not use it: it would share the events with its parent.
#[derive(Debug)]
pub struct LogWatch {
    inotify: Inotify,
    log: PathBuf,
    name: OsString,
    /// `None` while there is no log.
    of_log: Option<WatchDescriptor>,
}

impl LogWatch {
    /// Watches the log of `database`, which need not be there yet.
    ///
    /// # Errors
    /// What the system returns: it has no such events, or this user has too many watches. Look at
    /// the header at intervals then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wal_core::storage::LogWatch;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let database = folder.path().join("app.db");
    /// let mut watch = LogWatch::of(&database)?;
    /// assert!(!watch.wait(None, Duration::ZERO)?);
    /// std::fs::write(folder.path().join("app.db-wal"), "frames")?;
    /// assert!(watch.wait(None, Duration::from_secs(60))?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn of(database: &Path) -> io::Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let open = || Ok(File::from(OwnedFd::from(Inotify::init(flags)?)));
        let descriptor = OwnedFd::from(open_above(MayCarry::NoLocks, open)?);
        // SAFETY: `open` made it by `Inotify::init`, or it is a duplicate of that.
        let inotify = unsafe { Inotify::from_owned_fd(descriptor) };
        let log = beside(database, "-wal");
        let directory = match database.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Before the log is looked for: one that appears in between is an event.
        inotify.add_watch(directory, OF_DIRECTORY)?;
        let name = log.file_name().unwrap_or_default().to_owned();
        let mut watch = LogWatch {
            inotify,
            log,
            name,
            of_log: None,
        };
        watch.watch_log()?;
        Ok(watch)
    }

    /// Readable while there is an event, for `poll`.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Waits up to `timeout`; true if the log was written, made or removed since the last call
    /// that returned true. It returns early when `also` is readable.
    ///
    /// # Errors
    /// What the system returns.
    pub fn wait(&mut self, also: Option<BorrowedFd<'_>>, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.take_events()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let readable = |of| PollFd::new(of, PollFlags::POLLIN);
            let mut polled = vec![readable(self.inotify.as_fd())];
            polled.extend(also.map(readable));
            // Rounded up: the last millisecond is not waited for in a loop.
            let left = PollTimeout::try_from(left + Duration::from_micros(999));
            match poll(&mut polled, left.unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(Errno::EINTR) => return self.take_events(),
                Ok(_) => {}
                Err(e) => return Err(e.into()),
            }
            let is_readable = |of: &PollFd<'_>| of.any().unwrap_or(true);
            if polled.get(1).is_some_and(is_readable) {
                return self.take_events();
            }
        }
    }

    /// Reads the events that are there; true if one is of the log.
    fn take_events(&mut self) -> io::Result<bool> {
        let mut is_written = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in &events {
                        is_written |= self.is_of_log(event)?;
                    }
                }
                Err(Errno::EAGAIN) => return Ok(is_written),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn is_of_log(&mut self, event: &InotifyEvent) -> io::Result<bool> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Ok(true);
        }
        if event.name.as_ref() == Some(&self.name) {
            // Another file has the name now, or none.
            self.watch_log()?;
            return Ok(true);
        }
        Ok(Some(event.wd) == self.of_log)
    }

    /// Watches the file that has the name of the log now.
    fn watch_log(&mut self) -> io::Result<()> {
        if let Some(before) = self.of_log.take() {
            // The watch is gone with its file.
            let _ = self.inotify.rm_watch(before);
        }
        match self.inotify.add_watch(&self.log, AddWatchFlags::IN_MODIFY) {
            Ok(watch) => self.of_log = Some(watch),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// Longer than a test takes.
    const LONG: Duration = Duration::from_secs(60);

    fn watched() -> (tempfile::TempDir, PathBuf, LogWatch) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let log = folder.path().join("app.db-wal");
        fs::write(&log, "header").unwrap();
        let watch = LogWatch::of(&database).unwrap();
        (folder, log, watch)
    }

    fn append(log: &Path) {
        let mut file = fs::OpenOptions::new().append(true).open(log).unwrap();
        file.write_all(b"frame").unwrap();
    }

    fn no_event(watch: &mut LogWatch) -> bool {
        !watch.wait(None, Duration::ZERO).unwrap()
    }

    #[test]
    fn each_write_to_the_log_is_reported_once() {
        let (_folder, log, mut watch) = watched();
        assert!(no_event(&mut watch));
        for _ in 0..3 {
            append(&log);
            assert!(watch.wait(None, LONG).unwrap());
            assert!(no_event(&mut watch));
        }
        fs::File::options()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(0)
            .unwrap();
        assert!(watch.wait(None, LONG).unwrap(), "a log that is truncated");
    }

    #[test]
    fn log_that_takes_the_name_is_watched() {
        let (folder, log, mut watch) = watched();
        fs::remove_file(&log).unwrap();
        assert!(watch.wait(None, LONG).unwrap());
        fs::write(&log, "header").unwrap();
        assert!(watch.wait(None, LONG).unwrap());
        append(&log);
        assert!(watch.wait(None, LONG).unwrap());
        let other = folder.path().join("other");
        fs::write(&other, "header").unwrap();
        fs::rename(&other, &log).unwrap();
        assert!(watch.wait(None, LONG).unwrap());
        append(&log);
        assert!(watch.wait(None, LONG).unwrap());
        assert!(no_event(&mut watch));
    }

    #[test]
    fn other_files_beside_the_log_are_no_events() {
        let (folder, _log, mut watch) = watched();
        for name in ["app.db", "app.db-shm", "app.db-wal2", "other.db-wal"] {
            fs::write(folder.path().join(name), "content").unwrap();
            append(&folder.path().join(name));
        }
        assert!(no_event(&mut watch));
    }

    #[test]
    fn wait_ends_when_another_descriptor_is_readable() {
        let (_folder, _log, mut watch) = watched();
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        (&theirs).write_all(b"x").unwrap();
        assert!(!watch.wait(Some(ours.as_fd()), LONG).unwrap());
    }
}
