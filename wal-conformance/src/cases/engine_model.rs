//! The model of an engine's write transaction, without a log, with which
//! `engine_scripts` compares the real one.

use std::collections::BTreeMap;

use crate::scene::content;
use wal_core::protocol::{FramesMark, Savepoint};

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Page {
    Version(u32),
    /// It was added, and not changed since.
    Zeros,
    /// It was added and never passed, or a failed call was to overwrite it.
    Undefined,
}

impl Page {
    /// True if `bytes` are this content of page `number`.
    pub(super) fn is(self, number: u32, bytes: &[u8]) -> bool {
        match self {
            Page::Version(version) => *bytes == *content(number, version),
            Page::Zeros => bytes.iter().all(|&byte| byte == 0),
            Page::Undefined => true,
        }
    }
}

/// The pages of a database.
pub(super) type State = Vec<Page>;

/// Page `number` of `state`, if it has that.
pub(super) fn page_of(state: &State, number: u32) -> Option<Page> {
    state
        .get(usize::try_from(number).ok()?.checked_sub(1)?)
        .copied()
}

/// A frame of the transaction.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Which one it is, of all that there ever were: another one in its place has
    /// another name.
    name: u32,
    page: u32,
    holds: Page,
}

/// Changes by `page_mut` and its kin.
#[derive(Clone, Default, Debug)]
pub(super) struct Changed {
    pub(super) pages: BTreeMap<u32, Page>,
    pub(super) page_count: u32,
}

/// A write transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) base: State,
    frames: Vec<Frame>,
    next_name: u32,
    pub(super) changed: Changed,
    /// Pages were spilled, so that frames may be there that hold no page any more.
    pub(super) may_have_spilled: bool,
    pub(super) savepoints: Vec<(Savepoint, Changed)>,
    pub(super) marks: Vec<(FramesMark, Vec<u32>)>,
}

impl Transaction {
    pub(super) fn on(base: State) -> Self {
        let page_count = u32::try_from(base.len()).expect("a small database");
        Transaction {
            base,
            frames: Vec::new(),
            next_name: 0,
            changed: Changed {
                pages: BTreeMap::new(),
                page_count,
            },
            may_have_spilled: false,
            savepoints: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// True if pages may be changed: there are no frames of an engine.
    pub(super) fn may_change_pages(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether frames may be passed; `None` if that depends on what was spilled.
    pub(super) fn may_pass_frames(&self) -> Option<bool> {
        let is_same_size = self.changed.page_count as usize == self.base.len();
        match self.changed.pages.is_empty() && is_same_size && self.savepoints.is_empty() {
            true => (!self.may_have_spilled).then_some(true),
            false => Some(false),
        }
    }

    fn newest(&mut self, page: u32) -> Option<&mut Frame> {
        self.frames
            .iter_mut()
            .rev()
            .find(|frame| frame.page == page)
    }

    /// `pages` were written with `version`.
    pub(super) fn write(&mut self, pages: &[u32], version: u32) {
        let holds = Page::Version(version);
        // A page that is passed twice, and has no frame yet, gets two frames.
        let there: Vec<bool> = pages
            .iter()
            .map(|&page| self.newest(page).is_some())
            .collect();
        for (&page, is_there) in pages.iter().zip(there) {
            match self.newest(page) {
                Some(frame) if is_there => frame.holds = holds,
                _ => {
                    let name = self.next_name;
                    self.next_name += 1;
                    self.frames.push(Frame { name, page, holds });
                }
            }
        }
    }

    /// A call that was to write `pages` failed when it had begun to overwrite those that
    /// have a frame. The last one of a commit is never overwritten.
    pub(super) fn fail_to_overwrite(&mut self, pages: &[u32], commits: bool) {
        let mut there: Vec<u32> = pages.to_vec();
        there.retain(|&page| self.newest(page).is_some());
        if commits && there.len() == pages.len() {
            there.pop();
        }
        for page in there {
            if let Some(frame) = self.newest(page) {
                frame.holds = Page::Undefined;
            }
        }
    }

    /// True if a commit of `pages` leaves out a page that is undefined.
    pub(super) fn is_unsettled(&self, pages: &[u32], page_count: u32) -> bool {
        let undefined = self
            .frames
            .iter()
            .filter(|frame| frame.holds == Page::Undefined);
        let mut left = undefined.filter(|frame| frame.page <= page_count);
        left.any(|frame| !pages.contains(&frame.page))
    }

    /// The state that a commit of `pages` with `version` makes.
    pub(super) fn committed(&self, pages: &[u32], version: u32, page_count: u32) -> State {
        let page = |number: u32| match self.frames.iter().rev().find(|frame| frame.page == number) {
            _ if pages.contains(&number) => Page::Version(version),
            Some(frame) => frame.holds,
            None => page_of(&self.base, number).unwrap_or(Page::Undefined),
        };
        (1..=page_count).map(page).collect()
    }

    /// What an engine reads of page `number`.
    pub(super) fn reads(&self, number: u32) -> Option<Page> {
        let frame = self.frames.iter().rev().find(|frame| frame.page == number);
        frame
            .map(|frame| frame.holds)
            .or_else(|| page_of(&self.base, number))
    }

    fn names(&self) -> Vec<u32> {
        self.frames.iter().map(|frame| frame.name).collect()
    }

    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }

    /// The pages of all frames.
    pub(super) fn pages_in_frames(&self) -> Vec<u32> {
        let mut pages: Vec<u32> = self.frames.iter().map(|frame| frame.page).collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    pub(super) fn mark(&mut self, mark: FramesMark) {
        let names = self.names();
        self.marks.push((mark, names));
    }

    /// True if the frames before the mark at `place` are still there.
    pub(super) fn has_mark(&self, place: usize) -> bool {
        self.names().starts_with(&self.marks[place].1)
    }

    /// Takes frames back to the mark at `place`.
    pub(super) fn cut(&mut self, place: usize) {
        self.frames.truncate(self.marks[place].1.len());
    }

    pub(super) fn undo(&mut self) {
        self.frames.clear();
    }

    /// What `WriteTx::page` reads of page `number`.
    pub(super) fn changed_page(&self, number: u32) -> Page {
        let changed = self.changed.pages.get(&number).copied();
        changed
            .or_else(|| self.reads(number))
            .expect("a page of the database")
    }

    pub(super) fn resize(&mut self, page_count: u32) {
        let before = self.changed.page_count;
        self.changed.pages.retain(|&page, _| page <= page_count);
        for page in before + 1..=page_count {
            self.changed.pages.insert(page, Page::Zeros);
        }
        self.changed.page_count = page_count;
    }

    /// The state that a commit of the changed pages makes.
    pub(super) fn changed_state(&self) -> State {
        (1..=self.changed.page_count)
            .map(|number| self.changed_page(number))
            .collect()
    }
}
