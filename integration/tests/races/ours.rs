//! Our side in the test process: one handle, and what is done with it, each in
//! a thread that is waited for no longer than it may take.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use integration::worker::Stamp;
use wal::shm::Database;
use wal::{CheckpointMode, Error, Options, PageNo};

use super::{AT_ONCE, BUSY_TIMEOUT};

const PAGE_SIZE: usize = 512;

/// How many pages each commit of ours stamps.
const STAMPED: usize = 5;

/// The stamp of our `sequence`-th commit.
pub(crate) fn stamp(sequence: u64) -> Stamp {
    Stamp {
        writer: 1,
        sequence,
    }
}

/// All pages of a snapshot.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Image(Vec<Vec<u8>>);

impl Image {
    /// The pages of a database file without a log.
    pub(crate) fn of_file(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        Image(bytes.chunks(PAGE_SIZE).map(<[u8]>::to_vec).collect())
    }

    fn read(database: &Database) -> wal::Result<Self> {
        let read = database.begin_read()?;
        let pages = 1..=read.page_count();
        let pages = pages.map(|page| Ok(read.page(PageNo::new(page)?)?.to_vec()));
        pages.collect::<wal::Result<_>>().map(Image)
    }

    /// The first overflow pages of the blob, which ours stamps.
    pub(crate) fn stamped_pages() -> std::ops::Range<u32> {
        static FIRST: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
            let scene = super::Scene::new(super::Start::Closed);
            let Image(pages) = Image::of_file(&scene.path);
            let filled = |page: &Vec<u8>| page[16..].iter().all(|&byte| byte == b'o');
            let first = pages
                .windows(STAMPED)
                .position(|run| run.iter().all(filled));
            u32::try_from(first.unwrap()).unwrap() + 1
        });
        *FIRST..*FIRST + u32::try_from(STAMPED).unwrap()
    }

    /// The newest commit of ours that is there, whole; 0 for none.
    pub(crate) fn sequence(&self) -> u64 {
        let mut sequences = Self::stamped_pages().map(|page| {
            let bytes = &self.0[page as usize - 1];
            if bytes[16..].iter().all(|&byte| byte == b'o') {
                return 0;
            }
            Stamp::read(page, bytes).unwrap().unwrap().sequence
        });
        let first = sequences.next().unwrap();
        assert!(sequences.all(|other| other == first), "a torn commit");
        first
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages", self.0.len())
    }
}

/// What ours does, once it has the database open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Write,
    Checkpoint,
    /// Commits, and moves what can be moved of that to the database file.
    WriteAndCheckpoint,
    /// As that, and begins the log anew if nobody is in the way.
    WriteAndTruncate,
    Close,
}

impl Action {
    pub(crate) const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Checkpoint,
        Self::WriteAndCheckpoint,
        Self::WriteAndTruncate,
        Self::Close,
    ];

    /// Whether it commits, if nobody is in the way.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::Checkpoint | Self::Close)
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The handle, unless it was closed or never opened.
    pub(crate) ours: Option<Ours>,
    /// The snapshot that it saw first, if it came to that.
    pub(crate) seen: Option<Image>,
    pub(crate) result: Result<(), Error>,
}

impl Outcome {
    /// Nothing was done.
    pub(crate) fn nothing(ours: Option<Ours>) -> Self {
        Outcome {
            ours,
            seen: None,
            result: Ok(()),
        }
    }
}

/// A handle of ours in the test process.
#[derive(Clone, Debug)]
pub(crate) struct Ours {
    database: Database,
}

impl Ours {
    pub(crate) fn open(path: &Path) -> wal::Result<Self> {
        let path: PathBuf = path.to_owned();
        within(AT_ONCE, "open", move || {
            let options = Options::new()
                .auto_checkpoint(0)
                .create(false)
                .read_lock_delay(Duration::ZERO);
            let database = options.busy_timeout(BUSY_TIMEOUT).open_shm(path)?;
            Ok(Ours { database })
        })
    }

    /// Opens the database and acts.
    pub(crate) fn open_and(path: &Path, action: Action) -> Outcome {
        match Self::open(path) {
            Ok(ours) => ours.act(action),
            Err(error) => Outcome {
                ours: None,
                seen: None,
                result: Err(error),
            },
        }
    }

    /// Acts. Whatever the action, what is seen first comes with it: a writer
    /// sees what it writes upon.
    pub(crate) fn act(self, action: Action) -> Outcome {
        let (seen, result) = match action {
            Action::Read => split(self.image()),
            Action::Write => split(self.commit(1)),
            Action::Checkpoint => (None, self.checkpoint(CheckpointMode::Passive)),
            Action::WriteAndCheckpoint => self.commit_and(CheckpointMode::Passive),
            Action::WriteAndTruncate => self.commit_and(CheckpointMode::Truncate),
            Action::Close => {
                let result = self.close();
                return Outcome {
                    ours: None,
                    seen: None,
                    result,
                };
            }
        };
        Outcome {
            ours: Some(self),
            seen,
            result,
        }
    }

    /// All pages of the newest snapshot.
    pub(crate) fn image(&self) -> wal::Result<Image> {
        self.image_within(AT_ONCE)
    }

    pub(crate) fn image_within(&self, limit: Duration) -> wal::Result<Image> {
        let database = self.database.clone();
        within(limit, "read", move || Image::read(&database))
    }

    /// Stamps the pages with `sequence`, and returns what was there before.
    pub(crate) fn commit(&self, sequence: u64) -> wal::Result<Image> {
        let database = self.database.clone();
        within(AT_ONCE, "write", move || {
            let mut write = database.begin_write()?;
            let pages = 1..=write.page_count();
            let pages = pages.map(|page| Ok(write.page(PageNo::new(page)?)?.to_vec()));
            let before = Image(pages.collect::<wal::Result<_>>()?);
            for page in Image::stamped_pages() {
                stamp(sequence).write(page, write.page_mut(PageNo::new(page)?)?);
            }
            write.commit()?;
            Ok(before)
        })
    }

    /// The commit counts; a checkpoint may find somebody in its way.
    fn commit_and(&self, mode: CheckpointMode) -> (Option<Image>, Result<(), Error>) {
        let committed = split(self.commit(1));
        if committed.1.is_ok() {
            match self.checkpoint(mode) {
                Ok(()) | Err(Error::Busy { .. }) => {}
                Err(error) => panic!("a checkpoint behind a commit: {error}"),
            }
        }
        committed
    }

    pub(crate) fn checkpoint(&self, mode: CheckpointMode) -> wal::Result<()> {
        let database = self.database.clone();
        within(AT_ONCE, "checkpoint", move || {
            database.checkpoint(mode).map(drop)
        })
    }

    pub(crate) fn close(self) -> wal::Result<()> {
        within(AT_ONCE, "close", move || self.database.close())
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }
}

fn split(seen: wal::Result<Image>) -> (Option<Image>, Result<(), Error>) {
    match seen {
        Ok(image) => (Some(image), Ok(())),
        Err(error) => (None, Err(error)),
    }
}

/// Runs `body`, and panics if it takes longer than `limit`: a hang.
fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(body()));
    match receiver.recv_timeout(limit) {
        Ok(value) => {
            // So that the handle that the thread borrowed is gone.
            thread.join().unwrap().unwrap();
            value
        }
        Err(error) => panic!("ours did not {what} within {limit:?}: {error}"),
    }
}
