//! Random operations of several handles, beside a model that is a list of the
//! committed states. What fails is shrunk to a short script.
#![cfg(all(feature = "shm", feature = "inproc"))]
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use wal::generic::{Database, ReadTx, WriteTx};
use wal::{
    Backend, CheckpointMode, CheckpointOptions, DatabaseKind, Error, Lock, Options, PageNo,
    PageSize, SavedSnapshot, Synchronous, VacuumOptions,
};

const HANDLES: usize = 3;
const READERS: usize = 4;
const MOST_PAGES: u32 = 40;

/// One step of a script. A number that is too large for what there is counts
/// from the beginning again.
#[derive(Clone, Debug)]
enum Step {
    /// A handle writes a new version of some pages, and commits or not.
    Write {
        handle: usize,
        pages: Vec<u32>,
        /// How many pages are added, or cut if negative.
        grow: i32,
        /// Whether all of that is done once more, with another version, and
        /// taken back to a savepoint.
        undo: bool,
        commit: bool,
    },
    BeginRead {
        handle: usize,
        reader: usize,
    },
    EndRead {
        reader: usize,
    },
    /// A reader that has not ended is upgraded, writes a page and commits.
    Upgrade {
        reader: usize,
        page: u32,
    },
    Save {
        reader: usize,
    },
    OpenSaved {
        handle: usize,
        reader: usize,
    },
    Checkpoint {
        handle: usize,
        mode: CheckpointMode,
    },
    /// Keeps each second page.
    Vacuum {
        handle: usize,
        exclusive: bool,
    },
    Reopen {
        handle: usize,
    },
    Backup {
        handle: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let handle = 0..HANDLES;
    let reader = 0..READERS;
    let modes = prop_oneof![
        Just(CheckpointMode::Passive),
        Just(CheckpointMode::Full),
        Just(CheckpointMode::Restart),
        Just(CheckpointMode::Truncate),
    ];
    let pages = proptest::collection::vec(1..MOST_PAGES, 0..6);
    let step = prop_oneof![
        8 => (handle.clone(), pages, -6..8i32, any::<bool>(), prop::bool::weighted(0.8)).prop_map(
            |(handle, pages, grow, undo, commit)| Step::Write { handle, pages, grow, undo, commit }
        ),
        5 => (handle.clone(), reader.clone())
            .prop_map(|(handle, reader)| Step::BeginRead { handle, reader }),
        3 => reader.clone().prop_map(|reader| Step::EndRead { reader }),
        2 => (reader.clone(), 1..MOST_PAGES).prop_map(|(reader, page)| Step::Upgrade { reader, page }),
        2 => reader.clone().prop_map(|reader| Step::Save { reader }),
        2 => (handle.clone(), reader)
            .prop_map(|(handle, reader)| Step::OpenSaved { handle, reader }),
        6 => (handle.clone(), modes).prop_map(|(handle, mode)| Step::Checkpoint { handle, mode }),
        1 => (handle.clone(), any::<bool>())
            .prop_map(|(handle, exclusive)| Step::Vacuum { handle, exclusive }),
        1 => handle.clone().prop_map(|handle| Step::Reopen { handle }),
        1 => handle.prop_map(|handle| Step::Backup { handle }),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The version of each page.
type State = Vec<u32>;

/// What every page of a version is filled with.
fn content(version: u32) -> Vec<u8> {
    version.to_le_bytes().repeat(128)
}

/// The handles, and what they must see.
struct Run<B: Backend> {
    open: fn(&Path) -> wal::Result<Database<B>>,
    handles: Vec<Option<Database<B>>>,
    readers: Vec<Option<(ReadTx<B>, State)>>,
    saved: Option<(SavedSnapshot, State)>,
    state: State,
    version: u32,
    path: PathBuf,
    directory: tempfile::TempDir,
}

fn options() -> Options {
    Options::new()
        .kind(DatabaseKind::RawPages)
        .page_size(PageSize::MIN)
        .synchronous(Synchronous::Off)
        .auto_checkpoint(0)
        // A transaction of more than three pages spills.
        .cache_spill(3 * 512)
        .busy_timeout(Duration::ZERO)
}

impl<B: Backend> Run<B> {
    fn new(open: fn(&Path) -> wal::Result<Database<B>>, is_shared: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pages");
        let first = open(&path).unwrap();
        let another = || match is_shared {
            true => open(&path).unwrap(),
            false => first.clone(),
        };
        Run {
            open,
            handles: (0..HANDLES).map(|_| Some(another())).collect(),
            readers: (0..READERS).map(|_| None).collect(),
            saved: None,
            state: vec![0],
            version: 0,
            path,
            directory,
        }
    }

    fn handle(&self, handle: usize) -> &Database<B> {
        self.handles[handle].as_ref().unwrap()
    }

    fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    fn take(&mut self, step: &Step) -> TestCaseResult {
        match *step {
            Step::Write {
                handle,
                ref pages,
                grow,
                undo,
                commit,
            } => {
                let version = self.next_version();
                let mut state = self.state.clone();
                let mut write = self.handle(handle).begin_write().unwrap();
                change(&mut write, &mut state, pages, grow, version);
                if undo {
                    let savepoint = write.savepoint();
                    change(&mut write, &mut state.clone(), pages, grow, u32::MAX);
                    write.rollback_to(savepoint).unwrap();
                }
                if commit {
                    write.commit().unwrap();
                    self.state = state;
                } else {
                    write.rollback();
                }
            }
            Step::BeginRead { handle, reader } => {
                let read = self.handle(handle).begin_read().unwrap();
                self.readers[reader] = Some((read, self.state.clone()));
            }
            Step::EndRead { reader } => self.readers[reader] = None,
            Step::Upgrade { reader, page } => return self.upgrade(reader, page),
            Step::Save { reader } => {
                if let Some((read, state)) = &self.readers[reader] {
                    self.saved = Some((read.snapshot().save(), state.clone()));
                }
            }
            Step::OpenSaved { handle, reader } => self.open_saved(handle, reader),
            Step::Checkpoint { handle, mode } => return self.checkpoint(handle, mode),
            Step::Vacuum { handle, exclusive } => self.vacuum(handle, exclusive),
            Step::Reopen { handle } => {
                // In one process the last clone to go would close the
                // database for the others' readers, so none is left alone.
                self.handles[handle] = None;
                let other = (handle + 1) % HANDLES;
                let same = self.handle(other).clone();
                self.handles[handle] = Some((self.open)(&self.path).unwrap_or(same));
            }
            Step::Backup { handle } => return self.backup(handle),
        }
        Ok(())
    }

    fn upgrade(&mut self, reader: usize, page: u32) -> TestCaseResult {
        let Some((read, state)) = self.readers[reader].take() else {
            return Ok(());
        };
        let is_newest = !read.is_stale().unwrap();
        prop_assert!(
            !is_newest || state == self.state,
            "a stale reader is newest"
        );
        match read.upgrade() {
            Ok(mut write) => {
                prop_assert!(is_newest);
                let version = self.next_version();
                let at = (page as usize - 1) % self.state.len();
                let page = PageNo::new(u32::try_from(at).unwrap() + 1).unwrap();
                let bytes = write.page_mut(page).unwrap();
                bytes.copy_from_slice(&content(version));
                write.commit().unwrap();
                self.state[at] = version;
            }
            Err(refused) => {
                prop_assert!(!is_newest, "{}", refused.error);
                prop_assert!(matches!(refused.error, Error::BusySnapshot));
                self.readers[reader] = Some((refused.read, state));
            }
        }
        Ok(())
    }

    fn open_saved(&mut self, handle: usize, reader: usize) {
        let Some((saved, state)) = &self.saved else {
            return;
        };
        match self.handle(handle).open_snapshot(saved) {
            Ok(read) => self.readers[reader] = Some((read, state.clone())),
            Err(Error::SnapshotGone { .. }) => {}
            // Four older states are held, so there is no mark for this one.
            Err(Error::Busy {
                lock: Lock::ReadMarks,
                ..
            }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn checkpoint(&mut self, handle: usize, mode: CheckpointMode) -> TestCaseResult {
        let options = CheckpointOptions::new(mode);
        let report = self.handle(handle).checkpoint_with(options).unwrap();
        prop_assert!(report.backfilled <= report.log_frames);
        let nobody_reads = self.readers.iter().all(Option::is_none);
        if nobody_reads {
            prop_assert_eq!(&report.held_back_by, &None);
            prop_assert!(report.is_complete());
        }
        if mode == CheckpointMode::Truncate && report.held_back_by.is_none() {
            let log = self.directory.path().join("pages-wal");
            prop_assert_eq!(log.metadata().unwrap().len(), 0);
        }
        Ok(())
    }

    fn vacuum(&mut self, handle: usize, exclusive: bool) {
        let options = match exclusive {
            true => VacuumOptions::new().exclusive(),
            false => VacuumOptions::new(),
        };
        let vacuumed = self.handle(handle).vacuum(&options, |old, new| {
            for page in (1..=old.page_count()).step_by(2) {
                new.push(&old.page(PageNo::new(page)?)?)?;
            }
            Ok(())
        });
        match vacuumed {
            Ok(_) => self.state = self.state.iter().copied().step_by(2).collect(),
            Err(Error::Busy { .. }) if exclusive => {
                assert!(self.readers.iter().any(Option::is_some), "nobody reads");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn backup(&mut self, handle: usize) -> TestCaseResult {
        let copy = self.directory.path().join("copy");
        self.handle(handle).backup(&copy, |_| Ok(())).unwrap();
        let bytes = std::fs::read(&copy).unwrap();
        let expected: Vec<u8> = self.state.iter().flat_map(|&v| content(v)).collect();
        prop_assert!(bytes == expected, "the backup is another state");
        std::fs::remove_file(copy).unwrap();
        Ok(())
    }

    /// Every reader sees its state, and a new one of each handle the newest.
    fn check(&self) -> TestCaseResult {
        for (read, state) in self.readers.iter().flatten() {
            check_reader(read, state)?;
        }
        for handle in self.handles.iter().flatten() {
            check_reader(&handle.begin_read().unwrap(), &self.state)?;
        }
        Ok(())
    }

    /// After all are closed the file has it all.
    fn end(mut self) -> TestCaseResult {
        self.readers.clear();
        self.handles.clear();
        prop_assert!(!self.directory.path().join("pages-wal").exists());
        let bytes = std::fs::read(&self.path).unwrap();
        let expected: Vec<u8> = self.state.iter().flat_map(|&v| content(v)).collect();
        prop_assert!(bytes == expected, "the file is another state");
        Ok(())
    }
}

/// Changes the size, and writes `version` to some pages.
fn change<B: Backend>(
    write: &mut WriteTx<B>,
    state: &mut State,
    pages: &[u32],
    grow: i32,
    version: u32,
) {
    if grow < 0 {
        let cut = grow.unsigned_abs().min(write.page_count() - 1);
        let count = write.page_count() - cut;
        write.set_page_count(count).unwrap();
        state.truncate(count as usize);
    }
    for _ in 0..grow {
        if write.page_count() < MOST_PAGES {
            let page = write.allocate().unwrap();
            assert!(write.page(page).unwrap().iter().all(|&byte| byte == 0));
            state.push(0);
        }
    }
    for &page in pages {
        let at = (page as usize - 1) % state.len();
        state[at] = version;
        let page = PageNo::new(u32::try_from(at).unwrap() + 1).unwrap();
        let bytes = write.page_mut(page).unwrap();
        bytes.copy_from_slice(&content(version));
    }
}

fn check_reader<B: Backend>(read: &ReadTx<B>, state: &State) -> TestCaseResult {
    prop_assert_eq!(read.page_count() as usize, state.len());
    for (number, &version) in (1..).zip(state) {
        let page = read.page(PageNo::new(number).unwrap()).unwrap();
        prop_assert!(*page == *content(version), "page {} of {:?}", number, state);
    }
    Ok(())
}

fn run<B: Backend>(mut run: Run<B>, steps: &[Step]) -> TestCaseResult {
    for step in steps {
        run.take(step)?;
        run.check()?;
    }
    run.end()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn shared_handles_do_what_the_model_says(steps in steps()) {
        run(Run::new(|path| options().open_shm(path), true), &steps)?;
    }

    #[test]
    fn in_process_handles_do_what_the_model_says(steps in steps()) {
        run(Run::new(|path| options().open_inproc(path), false), &steps)?;
    }
}
