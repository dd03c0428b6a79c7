//! Random calls of an engine beside a model of the transaction. A call to the files, the
//! index or the locks fails now and then. Readers and a recovery of the files find each
//! acknowledged commit, and nothing of a commit that was refused.
//!
//! `WAL_ENGINE_SCRIPTS` is how many scripts are run, `WAL_ENGINE_SEED` the first seed. A
//! script that fails prints its seed.

use super::engine_model::{Page, State, Transaction};
use super::spilling::number;
use crate::calls::{Call, Which};
use crate::director::{Then, nth};
use crate::scene::{Reading, Scene, User, Writing, content};
use crate::subject::Subject;
use wal_core::error::{Error, Result};
use wal_core::protocol::{CheckpointMode, FramesMark, Synchronous};
use wal_core::types::PageNo;

const STEPS: usize = 40;
/// How many scripts are run without `WAL_ENGINE_SCRIPTS`.
const SCRIPTS: u64 = 30;

/// Prints which script failed.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "WAL_ENGINE_SEED={} WAL_ENGINE_SCRIPTS=1 runs it again",
                self.0
            );
        }
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

pub(crate) fn engine_calls_that_fail_anywhere_match_the_model<B: Subject>() {
    let first = from_environment("WAL_ENGINE_SEED", 0);
    for seed in first..first + from_environment("WAL_ENGINE_SCRIPTS", SCRIPTS) {
        let _seed = Seed(seed);
        Script::<B>::new(seed).run();
    }
}

/// What a call does if nothing fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Done,
    Refused,
    NoSavepoint,
    /// That depends on what was spilled.
    DoneOrRefused,
}

/// What became of a call.
#[derive(Debug)]
struct Outcome<T> {
    result: Result<T>,
    /// It failed when it had begun to overwrite frames.
    has_overwritten: bool,
}

/// A write transaction, and what it must hold.
struct Running<B: Subject> {
    tx: Writing<B>,
    model: Transaction,
}

struct Script<B: Subject> {
    rng: fastrand::Rng,
    /// Dropped before the scene.
    writer: User<B>,
    other: User<B>,
    reader: Option<(Reading<B>, State)>,
    committed: State,
    /// What a recovery may find besides, since a commit whose outcome is unknown.
    unknown: Vec<State>,
    version: u32,
    /// Marks of transactions that are over.
    foreign: Vec<FramesMark>,
    /// A sync has failed.
    is_poisoned: bool,
    scene: Scene<B>,
}

fn connection<B: Subject>(scene: &Scene<B>, rng: &mut fastrand::Rng) -> User<B> {
    let levels = [Synchronous::Off, Synchronous::Normal, Synchronous::Full];
    let (synchronous, spill) = (levels[rng.usize(..3)], rng.u64(..4) * 512);
    let limit = rng.bool().then_some(4096);
    scene.user_with(|config| {
        config.synchronous = synchronous;
        config.cache_spill = spill;
        config.log_size_limit = limit;
    })
}

/// What `read` sees that `state` is not.
fn difference<B: Subject>(read: &Reading<B>, state: &State) -> Option<String> {
    if read.page_count() as usize != state.len() {
        return Some(format!("{} pages, not {}", read.page_count(), state.len()));
    }
    (1..).zip(state).find_map(|(page, holds)| {
        let bytes = read.page(number(page)).expect("a page is read");
        let differs = || format!("page {page}: {:?}, not {holds:?}", &bytes[..16]);
        (!holds.is(page, &bytes)).then(differs)
    })
}

#[track_caller]
fn expect_state<B: Subject>(read: &Reading<B>, state: &State) {
    assert_eq!(difference::<B>(read, state), None);
}

impl<B: Subject> Script<B> {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let scene = Scene::<B>::new(4);
        let writer = connection(&scene, &mut rng);
        let other = scene.user();
        let mut script = Script {
            rng,
            writer,
            other,
            reader: None,
            committed: vec![Page::Version(0); 4],
            unknown: Vec::new(),
            version: 0,
            foreign: Vec::new(),
            is_poisoned: false,
            scene,
        };
        if seed % 8 == 7 {
            script.fill_a_block();
        }
        script
    }

    /// Leaves room for few frames in the first block of the index.
    fn fill_a_block(&mut self) {
        let version = self.next_version();
        let pages: Vec<u32> = (0..4050).map(|n| n % 4 + 1).collect();
        let mut tx = self.writer.write();
        with_frames(&pages, version, |frames| tx.commit_frames(frames, 4)).expect("a commit");
        self.committed = vec![Page::Version(version); 4];
    }

    fn size(&self) -> u32 {
        u32::try_from(self.committed.len()).expect("a small database")
    }

    fn next_version(&mut self) -> u32 {
        self.version += 1;
        self.version
    }

    fn run(mut self) {
        let mut running: Option<Running<B>> = None;
        for _ in 0..STEPS {
            running = match running {
                Some(running) => self.go_on(running),
                None => {
                    self.act_between();
                    self.begin()
                }
            };
            expect_state::<B>(&self.other.read(), &self.committed);
            if self.is_poisoned {
                self.close(running.take());
            }
        }
        drop(running);
        self.recover();
        expect_state::<B>(&self.other.read(), &self.committed);
    }

    /// What the files hold is what was committed.
    fn recover(&self) {
        let (database, log) = self.scene.files();
        let recovered = Scene::<B>::from_files(&database, Some(&log));
        let read = recovered.user().read();
        if let Some(found) = difference::<B>(&read, &self.committed) {
            let mut unknown = self.unknown.iter();
            let is_there = unknown.any(|state| difference::<B>(&read, state).is_none());
            assert!(is_there, "recovered: {found}");
        }
    }

    /// A handle that a failed sync has poisoned does not write any more.
    fn close(&mut self, running: Option<Running<B>>) {
        if let Some(Running { mut tx, .. }) = running {
            let refused = tx.append_frames_vectored(&[]);
            assert!(
                matches!(refused, Err(Error::Poisoned { .. })),
                "{refused:?}"
            );
        }
        self.writer = connection(&self.scene, &mut self.rng);
        self.is_poisoned = false;
        self.recover();
    }

    /// What another user does while there is no transaction.
    fn act_between(&mut self) {
        match self.rng.u8(..8) {
            0 => self.reader = None,
            1 => self.reader = Some((self.other.read(), self.committed.clone())),
            2 => drop(self.other.checkpoint()),
            3 => {
                let mode = [CheckpointMode::Restart, CheckpointMode::Truncate];
                let mode = mode[self.rng.usize(..2)];
                self.other.wal.checkpoint(mode).expect("a checkpoint");
            }
            4 => {
                let version = self.next_version();
                self.other.commit(&[2, 1], version);
                if self.committed.len() < 2 {
                    self.committed.push(Page::Undefined);
                }
                self.committed[..2].fill(Page::Version(version));
                self.unknown.clear();
            }
            _ => {}
        }
        if let Some((read, state)) = &self.reader {
            expect_state::<B>(read, state);
        }
    }

    fn begin(&mut self) -> Option<Running<B>> {
        let tx = match self.rng.bool() {
            true => self.writer.write(),
            false => self.writer.read().upgrade().expect("a transaction begins"),
        };
        let model = Transaction::on(self.committed.clone());
        Some(Running { tx, model })
    }

    /// Runs `call`, in which some call of the seam may fail.
    #[track_caller]
    fn call<T: std::fmt::Debug>(
        &mut self,
        expected: Expected,
        call: impl FnOnce() -> Result<T>,
    ) -> Outcome<T> {
        let fails = self.rng.u8(..100) < 35;
        // Most operations make few calls.
        let most = if self.rng.bool() { 8 } else { 40 };
        let at = self.rng.usize(..most);
        let then = match self.rng.bool() {
            true => Then::Fail,
            false => Then::FailAfter(self.rng.usize(..1200)),
        };
        if fails {
            self.writer.then(nth(at), move || then);
        }
        let (result, calls) = self.writer.trace(|_| call());
        self.writer.stepped_in();
        let failed = calls.get(at).filter(|_| fails);
        self.is_poisoned |= matches!(failed, Some(Call::Sync(_) | Call::StartWriteback(_)));
        // So does a leader of a shared sync that fails at another call before it publishes.
        self.is_poisoned |= failed.is_some() && result.is_err() && self.writer.wal.is_poisoned();
        let overwrites = |call: &Call| {
            matches!(
                call,
                Call::Write {
                    file: Which::Log,
                    len: 512,
                    ..
                }
            )
        };
        let is_right = match &result {
            Ok(_) => matches!(expected, Expected::Done | Expected::DoneOrRefused),
            Err(Error::Refused { .. }) => {
                matches!(expected, Expected::Refused | Expected::DoneOrRefused)
            }
            Err(Error::NoSuchSavepoint) => expected == Expected::NoSavepoint,
            Err(Error::Io { .. } | Error::CommitOutcomeUnknown { .. }) => failed.is_some(),
            Err(_) => false,
        };
        assert!(is_right, "{result:?}, not {expected:?}; {failed:?} failed");
        Outcome {
            has_overwritten: result.is_err() && calls.iter().any(overwrites),
            result,
        }
    }

    fn go_on(&mut self, mut running: Running<B>) -> Option<Running<B>> {
        let changes_pages = !running.model.may_pass_frames().unwrap_or(false);
        match self.rng.u8(..40) {
            0..14 if !changes_pages => self.write(&mut running),
            14..18 => self.commit(&mut running),
            18..21 => self.commit_what_is_wrong(&mut running),
            21..25 => running.model.mark(running.tx.frames_mark()),
            25..29 => self.cut(&mut running),
            29 => self.undo(&mut running),
            30 => {
                let checkpoint = self.other.wal.checkpoint(CheckpointMode::Passive);
                assert!(matches!(checkpoint, Ok(_) | Err(Error::Busy { .. })));
            }
            31 if !changes_pages => return self.end(running),
            32 if changes_pages => return self.commit_pages(running),
            _ if changes_pages || self.rng.u8(..8) == 0 => self.change_pages(&mut running),
            _ => self.write(&mut running),
        }
        check_reads(&running);
        Some(running)
    }

    fn some_pages(&mut self, most: u32, up_to: u32) -> Vec<u32> {
        let pages = self.rng.u32(1..=most);
        (0..pages).map(|_| self.rng.u32(1..=up_to)).collect()
    }

    fn frames_expected(model: &Transaction) -> Expected {
        match model.may_pass_frames() {
            Some(true) => Expected::Done,
            Some(false) => Expected::Refused,
            None => Expected::DoneOrRefused,
        }
    }

    fn write(&mut self, running: &mut Running<B>) {
        let Running { tx, model } = running;
        let up_to = self.size() + 2;
        let (pages, version) = (self.some_pages(4, up_to), self.next_version());
        let write = || with_frames(&pages, version, |frames| tx.append_frames_vectored(frames));
        let outcome = self.call(Self::frames_expected(model), write);
        if outcome.result.is_ok() {
            model.write(&pages, version);
        } else if outcome.has_overwritten {
            model.fail_to_overwrite(&pages, false);
        }
    }

    fn commit(&mut self, running: &mut Running<B>) {
        let Running { tx, model } = running;
        let count = (self.size() + self.rng.u32(..4)).saturating_sub(1).max(1);
        let (pages, version) = (self.some_pages(3, count), self.next_version());
        let expected = match model.is_unsettled(&pages, count) {
            true => Expected::Refused,
            false => Self::frames_expected(model),
        };
        let commit = || with_frames(&pages, version, |frames| tx.commit_frames(frames, count));
        let outcome = self.call(expected, commit);
        let state = model.committed(&pages, version, count);
        match outcome.result {
            Ok(frames) => {
                assert_eq!(frames, self.other.header().max_frame());
                self.foreign
                    .extend(model.marks.drain(..).map(|(mark, _)| mark));
                self.committed = state;
                self.unknown.clear();
                *model = Transaction::on(self.committed.clone());
            }
            Err(error) => {
                if matches!(error, Error::CommitOutcomeUnknown { .. }) {
                    self.unknown.push(state);
                }
                if outcome.has_overwritten {
                    model.fail_to_overwrite(&pages, true);
                }
            }
        }
        self.recover();
    }

    fn commit_what_is_wrong(&mut self, running: &mut Running<B>) {
        let Running { tx, .. } = running;
        let size = self.size();
        let lock_bytes = self.writer.wal.config().page_size.lock_byte_page().get();
        let (pages, count): (&[u32], u32) = match self.rng.u8(..6) {
            0 => (&[], size),
            1 => (&[1], 0),
            2 => (&[1, 2], 1),
            3 => (&[1], u32::MAX),
            4 => (&[1], 1_000_000),
            _ => (&[lock_bytes], lock_bytes),
        };
        let commit = || with_frames(pages, 0, |frames| tx.commit_frames(frames, count));
        let outcome = self.call(Expected::Refused, commit);
        assert!(!outcome.has_overwritten);
    }

    fn cut(&mut self, running: &mut Running<B>) {
        let Running { tx, model } = running;
        let (own, foreign) = (model.marks.len(), self.foreign.len());
        if own + foreign == 0 {
            return;
        }
        let place = match own {
            0 => self.rng.usize(..foreign),
            _ if self.rng.u8(..4) > 0 => self.rng.usize(..own),
            _ => self.rng.usize(..own + foreign),
        };
        let is_own = own > 0 && place < own;
        let mark = match is_own {
            true => model.marks[place].0,
            false => self.foreign[place - own],
        };
        let expected = match model.may_pass_frames() {
            Some(false) => Expected::Refused,
            None => return,
            _ if is_own && model.has_mark(place) => Expected::Done,
            _ => Expected::NoSavepoint,
        };
        if self.call(expected, || tx.cut_frames(mark)).result.is_ok() {
            model.cut(place);
        }
    }

    fn undo(&mut self, running: &mut Running<B>) {
        let Running { tx, model } = running;
        let undone = self.call(Self::frames_expected(model), || tx.undo_frames());
        if let Ok(pages) = undone.result
            && model.may_pass_frames() == Some(true)
        {
            let pages: Vec<u32> = pages.into_iter().map(PageNo::get).collect();
            assert_eq!(pages, model.pages_in_frames());
            model.undo();
        }
    }

    /// Ends a transaction of frames.
    fn end(&mut self, running: Running<B>) -> Option<Running<B>> {
        let Running { mut tx, mut model } = running;
        self.foreign
            .extend(model.marks.drain(..).map(|(mark, _)| mark));
        match self.rng.u8(..3) {
            0 => drop(tx),
            1 => {
                let committed = self.committed.clone();
                if let Ok(read) = self.call(Expected::Done, || tx.into_read()).result {
                    expect_state::<B>(&read, &committed);
                }
            }
            _ => {
                let mark = tx.frames_mark();
                tx.cut_frames(mark).expect("it is there");
                let mut named = Vec::new();
                let rollback = || tx.rollback_with(|page| named.push(page.get()));
                if self.call(Expected::Done, rollback).result.is_ok() {
                    assert_eq!(named, model.pages_in_frames());
                }
            }
        }
        self.recover();
        None
    }

    fn pages_expected(model: &Transaction) -> Expected {
        match model.may_change_pages() {
            true => Expected::Done,
            false => Expected::Refused,
        }
    }

    fn change_pages(&mut self, running: &mut Running<B>) {
        let Running { tx, model } = running;
        let (expected, version) = (Self::pages_expected(model), self.next_version());
        let size = model.changed.page_count;
        match self.rng.u8(..9) {
            0..4 => {
                let page = self.rng.u32(1..=size);
                let change = || {
                    let bytes = tx.page_mut(number(page))?;
                    bytes.copy_from_slice(&content(page, version));
                    Ok(())
                };
                if self.call(expected, change).result.is_ok() {
                    model.changed.pages.insert(page, Page::Version(version));
                }
            }
            4 if size < 8 => {
                if self.call(expected, || tx.allocate()).result.is_ok() {
                    model.resize(size + 1);
                }
            }
            5 => {
                let count = self.rng.u32(1..=size.min(6) + 1);
                if self
                    .call(expected, || tx.set_page_count(count))
                    .result
                    .is_ok()
                {
                    model.resize(count);
                }
            }
            6 if model.savepoints.len() < 3 => {
                model
                    .savepoints
                    .push((tx.savepoint(), model.changed.clone()));
            }
            7 if !model.savepoints.is_empty() => {
                let place = self.rng.usize(..model.savepoints.len());
                let (savepoint, changed) = model.savepoints[place].clone();
                if self.rng.bool() {
                    let back = self.call(Expected::Done, || tx.rollback_to(savepoint));
                    back.result.expect("nothing of it can fail");
                    model.changed = changed;
                    model.savepoints.truncate(place + 1);
                } else {
                    tx.release(savepoint).expect("the savepoint is there");
                    model.savepoints.truncate(place);
                }
            }
            _ => drop(self.call(Expected::Done, || tx.spill())),
        }
        model.may_have_spilled |= expected == Expected::Done;
    }

    /// Ends a transaction that may have changed pages.
    fn commit_pages(&mut self, running: Running<B>) -> Option<Running<B>> {
        let Running { tx, model } = running;
        let outcome = self.call(Self::pages_expected(&model), || tx.commit());
        match outcome.result {
            Ok(_) => {
                self.committed = model.changed_state();
                self.unknown.clear();
            }
            Err(Error::CommitOutcomeUnknown { .. }) => self.unknown.push(model.changed_state()),
            Err(_) => {}
        }
        self.recover();
        None
    }
}

/// Passes `call` the pages `numbers` with `version`.
fn with_frames<T>(numbers: &[u32], version: u32, call: impl FnOnce(&[(PageNo, &[u8])]) -> T) -> T {
    let page = |&page: &u32| (number(page), content(page, version));
    let pages: Vec<(PageNo, Vec<u8>)> = numbers.iter().map(page).collect();
    let frames: Vec<(PageNo, &[u8])> = pages.iter().map(|(no, page)| (*no, &**page)).collect();
    call(&frames)
}

/// Asserts that the transaction reads what the model holds.
#[track_caller]
fn check_reads<B: Subject>(running: &Running<B>) {
    let Running { tx, model } = running;
    if !model.may_pass_frames().unwrap_or(false) {
        for page in 1..=model.changed.page_count {
            let (bytes, holds) = (tx.page(number(page)), model.changed_page(page));
            let bytes = bytes.expect("a page is read");
            assert!(
                holds.is(page, &bytes),
                "page {page}: {:?}, not {holds:?}",
                &bytes[..16]
            );
        }
        return;
    }
    for page in 1..=12 {
        let Some(holds) = model.reads(page) else {
            continue;
        };
        let mut bytes = vec![0; 512];
        match tx.find_frame(number(page)).expect("a look-up") {
            Some(frame) => tx.read_frame(frame, &mut bytes).expect("a frame is read"),
            None => bytes.copy_from_slice(&tx.as_read().page(number(page)).expect("a page")),
        }
        assert!(
            holds.is(page, &bytes),
            "page {page}: {:?}, not {holds:?}",
            &bytes[..16]
        );
    }
    let frames = tx.frames_mark().to_words()[0];
    assert_eq!(frames as usize, model.frames());
}
