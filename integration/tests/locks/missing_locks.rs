//! A system without locks of open file descriptions (WSL 1, old sandboxes): the error names
//! the option to set, and with that option everything works.

#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use integration::worker::{BackendKind, Checkpoint, Command, Refusal, Settings, Stamp, Worker};
use tempfile::TempDir;
use wal_core::storage::beside;

struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        Scene {
            directory: TempDir::new().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("pages")
    }

    fn count(&self) -> PathBuf {
        self.directory.path().join("count")
    }

    fn worker(&self) -> Worker {
        let (path, count) = (self.path(), self.count());
        let variables: [(&str, &OsStr); 4] = [
            ("LD_PRELOAD", OsStr::new(env!("FAILING_CALLS"))),
            ("WAL_FAULT", OsStr::new("NO_OFD")),
            ("WAL_FAULT_PREFIX", path.as_os_str()),
            ("WAL_FAULT_COUNT", count.as_os_str()),
        ];
        Worker::spawn_with(&variables).unwrap()
    }

    fn settings(&self, backend: BackendKind, classic_locks: bool) -> Settings {
        let mut settings = Settings::new(&self.path());
        settings.backend = backend;
        settings.classic_locks = classic_locks;
        settings
    }

    fn was_hit(&self) -> bool {
        fs::read_to_string(self.count())
            .unwrap()
            .trim_end()
            .ends_with(" 1")
    }
}

const BACKENDS: [BackendKind; 2] = [BackendKind::Shm, BackendKind::InProcess];

#[test]
fn open_without_locks_of_descriptions_names_the_option() {
    for backend in BACKENDS {
        let scene = Scene::new();
        let mut worker = scene.worker();
        let open = Command::Open(scene.settings(backend, false));
        let error = worker.run(open).unwrap_err();
        let message = error.downcast::<Refusal>().unwrap().message;
        for said in [
            "pages: lock failed",
            "open file description",
            "lock_kind(LockKind::Classic)",
        ] {
            assert!(message.contains(said), "{backend:?}: {message}");
        }
        assert!(!beside(&scene.path(), "-wal").exists());
        worker.end().unwrap();
        assert!(scene.was_hit());
    }
}

/// No lock of a description is asked for, in the same process that was refused before.
#[test]
fn classic_locks_serve_without_locks_of_descriptions() {
    for backend in BACKENDS {
        let scene = Scene::new();
        let mut worker = scene.worker();
        let refused = worker.run(Command::Open(scene.settings(backend, false)));
        assert!(refused.is_err());
        let stamp = |sequence| Stamp {
            writer: 1,
            sequence,
        };
        for sequence in 1..=3 {
            let open = Command::Open(scene.settings(backend, true));
            worker.run(open).unwrap();
            worker.commit(1..2, stamp(sequence)).unwrap();
            let seen = worker.newest_stamps(1..2).unwrap();
            assert_eq!(seen, [Some(stamp(sequence))]);
            let truncate = Command::Checkpoint(Checkpoint::Truncate);
            assert!(worker.ask::<bool>(truncate).unwrap());
            worker.run(Command::Close).unwrap();
            assert!(!beside(&scene.path(), "-wal").exists());
        }
        worker.end().unwrap();
    }
}
