//! What a write transaction keeps on the heap: the pages that it changed since
//! the log last got them, and what they were at each open savepoint.
//!
//! A savepoint is either still in memory, with the former content of every
//! page that was changed since, or in the log: then its end of the log tells
//! what it was, and everything in memory came later. Spilling turns all of
//! them into the second kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::protocol::write::own_frames::LogEnd;
use crate::testing::rule;
use crate::types::PageNo;

/// Pages by their number.
pub(super) type DirtyPages = BTreeMap<PageNo, Box<[u8]>>;

/// A place in a write transaction to which it can be rolled back. It is of no
/// use once it was released or rolled back over, nor to another transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Savepoint {
    transaction: u64,
    number: u64,
}

/// The smallest and the largest size that the database had since some moment.
#[derive(Clone, Copy, Debug)]
struct Extent {
    smallest: u32,
    largest: u32,
}

impl Extent {
    fn of(page_count: u32) -> Self {
        Extent {
            smallest: page_count,
            largest: page_count,
        }
    }

    fn include(&mut self, page_count: u32) {
        self.smallest = self.smallest.min(page_count);
        self.largest = self.largest.max(page_count);
    }

    /// The pages that were cut off or added since, if there are any.
    fn moved(self) -> impl Iterator<Item = PageNo> {
        (self.smallest..self.largest).filter_map(|before| PageNo::new(before + 1).ok())
    }
}

/// Where the state of a savepoint is found.
#[derive(Debug)]
enum State {
    /// What changed pages were: `None` for one that was not in memory.
    Memory(BTreeMap<PageNo, Option<Box<[u8]>>>),
    /// The log up to here is the state.
    Log(LogEnd),
}

#[derive(Debug)]
struct OpenSavepoint {
    number: u64,
    page_count: u32,
    extent: Extent,
    state: State,
    /// How many pages of former content `state` holds.
    images: usize,
}

/// Pages in the order in which they were changed, for the log.
pub(super) struct History<'p> {
    /// The pages as of the first savepoint that is in memory, or as they are
    /// if there is none.
    pub(super) base: Vec<(PageNo, &'p [u8])>,
    /// What was changed from each such savepoint to the next.
    pub(super) later: Vec<Vec<(PageNo, &'p [u8])>>,
}

/// What a write transaction holds in memory.
#[derive(Debug)]
pub(in crate::protocol) struct Changes {
    transaction: u64,
    dirty: DirtyPages,
    page_count: u32,
    /// Since the transaction began.
    extent: Extent,
    /// From the first one set to the last.
    savepoints: Vec<OpenSavepoint>,
    next_number: u64,
}

impl Changes {
    /// Nothing, in a database of `page_count` pages.
    pub(in crate::protocol) fn none(page_count: u32) -> Self {
        // Only equality counts, so any order of the additions will do. 0 is none.
        #[expect(clippy::disallowed_types, reason = "a static outlives a model")]
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        Changes {
            transaction: NEXT.fetch_add(1, Ordering::Relaxed),
            dirty: DirtyPages::new(),
            page_count,
            extent: Extent::of(page_count),
            savepoints: Vec::new(),
            next_number: 0,
        }
    }

    pub(in crate::protocol) fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Which transaction this is, of all of this process.
    pub(in crate::protocol) fn transaction(&self) -> u64 {
        self.transaction
    }

    /// True if no page is changed in memory and no savepoint is open.
    pub(in crate::protocol) fn is_untouched(&self) -> bool {
        self.dirty.is_empty() && self.savepoints.is_empty()
    }

    /// The pages that the log does not have yet.
    pub(in crate::protocol) fn dirty(&self) -> &DirtyPages {
        &self.dirty
    }

    pub(in crate::protocol) fn page_mut(&mut self, page: PageNo) -> Option<&mut [u8]> {
        self.dirty.get_mut(&page).map(|bytes| &mut **bytes)
    }

    /// How many pages are held.
    pub(in crate::protocol) fn len(&self) -> usize {
        let images: usize = self.savepoints.iter().map(|open| open.images).sum();
        self.dirty.len() + images
    }

    /// True if `page` can be changed where it is, without room for more.
    pub(super) fn is_ready(&self, page: PageNo) -> bool {
        let captured = match self.savepoints.last().map(|open| &open.state) {
            Some(State::Memory(before)) => before.contains_key(&page),
            Some(State::Log(_)) | None => true,
        };
        captured && self.dirty.contains_key(&page)
    }

    /// Keeps what `page` is for the newest savepoint, then makes it `content`.
    pub(super) fn put(&mut self, page: PageNo, content: Box<[u8]>) {
        let former = self.dirty.insert(page, content);
        self.keep_former(page, former);
    }

    /// Keeps what `page` is for the newest savepoint, and leaves it so.
    pub(super) fn prepare(&mut self, page: PageNo) {
        let former = self.dirty.get(&page).cloned();
        self.keep_former(page, former);
    }

    fn keep_former(&mut self, page: PageNo, former: Option<Box<[u8]>>) {
        let Some(open) = self.savepoints.last_mut() else {
            return;
        };
        if let State::Memory(before) = &mut open.state {
            let image = usize::from(former.is_some());
            before.entry(page).or_insert_with(|| {
                open.images += image;
                former
            });
        }
    }

    /// Changes the size; pages beyond it are gone.
    pub(in crate::protocol) fn resize(&mut self, page_count: u32) {
        if let Some(first) = page_count.checked_add(1).and_then(|n| PageNo::new(n).ok()) {
            for (page, content) in self.dirty.split_off(&first) {
                self.keep_former(page, Some(content));
            }
        }
        self.page_count = page_count;
        self.extent.include(page_count);
        for open in &mut self.savepoints {
            open.extent.include(page_count);
        }
    }

    /// Sets a savepoint.
    pub(in crate::protocol) fn savepoint(&mut self) -> Savepoint {
        let number = self.next_number;
        self.next_number += 1;
        self.savepoints.push(OpenSavepoint {
            number,
            page_count: self.page_count,
            extent: Extent::of(self.page_count),
            state: State::Memory(BTreeMap::new()),
            images: 0,
        });
        Savepoint {
            transaction: self.transaction,
            number,
        }
    }

    fn find(&self, savepoint: Savepoint) -> Result<usize> {
        let known = |open: &OpenSavepoint| open.number == savepoint.number;
        match self.savepoints.iter().position(known) {
            Some(place) if savepoint.transaction == self.transaction => Ok(place),
            _ => Err(Error::NoSuchSavepoint),
        }
    }

    /// Forgets `savepoint` and those after it; what was changed stays.
    pub(in crate::protocol) fn release(&mut self, savepoint: Savepoint) -> Result<()> {
        let place = self.find(savepoint)?;
        for released in self.savepoints.split_off(place) {
            let Some(outer) = self.savepoints.last_mut() else {
                continue;
            };
            if let (State::Memory(outer_before), State::Memory(before)) =
                (&mut outer.state, released.state)
            {
                for (page, former) in before {
                    let image = usize::from(former.is_some());
                    outer_before.entry(page).or_insert_with(|| {
                        outer.images += image;
                        former
                    });
                }
            }
        }
        Ok(())
    }

    /// Forgets all savepoints; what was changed stays.
    pub(super) fn release_all(&mut self) {
        self.savepoints.clear();
    }

    /// Takes everything back to `savepoint`, which stays, and tells the end of
    /// the log that belongs to it, if that is another one.
    pub(super) fn roll_back_to(&mut self, savepoint: Savepoint) -> Result<Option<LogEnd>> {
        let place = self.find(savepoint)?;
        let mut end = None;
        for open in self.savepoints.drain(place + 1..).rev() {
            undo(&mut self.dirty, open.state, &mut end);
        }
        let Some(open) = self.savepoints.last_mut() else {
            return Err(Error::NoSuchSavepoint);
        };
        match &mut open.state {
            State::Memory(before) => {
                let before = State::Memory(std::mem::take(before));
                undo(&mut self.dirty, before, &mut end);
            }
            State::Log(at) => undo(&mut self.dirty, State::Log(*at), &mut end),
        }
        open.images = 0;
        rule!(RollbackRestoresPageCount, {
            self.page_count = open.page_count;
        });
        open.extent = Extent::of(self.page_count);
        Ok(end)
    }

    /// The pages that were changed in memory since `savepoint`, or since the
    /// transaction began; those cut off and added are among them.
    pub(in crate::protocol) fn changed(
        &self,
        since: Option<Savepoint>,
    ) -> Result<BTreeSet<PageNo>> {
        let Some(savepoint) = since else {
            return Ok(self
                .dirty
                .keys()
                .copied()
                .chain(self.extent.moved())
                .collect());
        };
        let place = self.find(savepoint)?;
        let mut changed: BTreeSet<PageNo> = self.savepoints[place].extent.moved().collect();
        for open in &self.savepoints[place..] {
            match &open.state {
                State::Memory(before) => changed.extend(before.keys()),
                State::Log(_) => changed.extend(self.dirty.keys()),
            }
        }
        Ok(changed)
    }

    /// The end of the log at `savepoint`, if it is in the log.
    pub(super) fn log_end_at(&self, savepoint: Savepoint) -> Result<Option<LogEnd>> {
        let place = self.find(savepoint)?;
        Ok(match self.savepoints[place].state {
            State::Log(end) => Some(end),
            State::Memory(_) => None,
        })
    }

    /// The end of the log that the newest savepoint in the log needs as it is.
    pub(super) fn kept_in_log(&self) -> Option<LogEnd> {
        self.savepoints
            .iter()
            .rev()
            .find_map(|open| match open.state {
                State::Log(end) => Some(end),
                State::Memory(_) => None,
            })
    }

    /// The place of the first savepoint that is in memory; all later ones are.
    fn first_in_memory(&self) -> usize {
        let in_log = |open: &OpenSavepoint| matches!(open.state, State::Log(_));
        self.savepoints
            .iter()
            .take_while(|open| in_log(open))
            .count()
    }

    /// What `page` was at the savepoint at `place`, if it was in memory.
    fn as_of(&self, place: usize, page: PageNo) -> Option<&[u8]> {
        let former = self.savepoints[place..]
            .iter()
            .find_map(|open| match &open.state {
                State::Memory(before) => before.get(&page),
                State::Log(_) => None,
            });
        match former {
            Some(former) => former.as_deref(),
            None => self.dirty.get(&page).map(|bytes| &**bytes),
        }
    }

    /// All that is in memory, in the order in which it came to be.
    pub(super) fn history(&self) -> History<'_> {
        let first = self.first_in_memory();
        let before = |place: usize| match &self.savepoints[place].state {
            State::Memory(before) => before.keys().copied().collect(),
            State::Log(_) => BTreeSet::new(),
        };
        let pages = |numbers: BTreeSet<PageNo>, place: usize| {
            let content = |page| Some((page, self.as_of(place, page)?));
            numbers.into_iter().filter_map(content).collect()
        };
        let mut numbers: BTreeSet<PageNo> = self.dirty.keys().copied().collect();
        let in_memory = first..self.savepoints.len();
        numbers.extend(in_memory.clone().flat_map(before));
        History {
            base: pages(numbers, first),
            later: in_memory
                .map(|place| pages(before(place), place + 1))
                .collect(),
        }
    }

    /// The log has everything; `ends` are those of the savepoints that were in
    /// memory.
    pub(in crate::protocol) fn spilled(&mut self, ends: &[LogEnd]) {
        let first = self.first_in_memory();
        for (open, &end) in self.savepoints[first..].iter_mut().zip(ends) {
            open.state = State::Log(end);
            open.images = 0;
        }
        self.dirty.clear();
    }
}

/// Takes `dirty` back to a savepoint. Older ones are in the log if this one
/// is, so the last end that is set is the right one.
fn undo(dirty: &mut DirtyPages, state: State, end: &mut Option<LogEnd>) {
    match state {
        State::Memory(before) => {
            for (page, former) in before {
                match former {
                    Some(content) => drop(dirty.insert(page, content)),
                    None => drop(dirty.remove(&page)),
                }
            }
        }
        State::Log(at) => {
            dirty.clear();
            *end = Some(at);
        }
    }
}
