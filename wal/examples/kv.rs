//! A small key-value store: a B+ tree on pages, with a free list, splits and range scans.
//! Several processes use it, each change is one transaction, and each scan one snapshot.
//!
//! ```sh
//! cargo run -p wal --example kv
//! ```
//!
//! Page 1 belongs to the library up to byte 64; behind that stand the root and the first
//! free page. A node is a list of entries, decoded and encoded as a whole: a leaf has
//! keys and values, an inner node keys and the pages of what is at or above them. A page that
//! becomes empty goes to the free list; nodes that are half empty are not joined.

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command};

use wal::{Database, DatabaseKind, Options, PageNo, Pages, Synchronous, WriteTx};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Bytes = Vec<u8>;

/// Where the root and the first free page stand in page 1, behind the library's header.
const ROOT: Range<usize> = 64..68;
const FREE: Range<usize> = 68..72;

/// One page of the tree.
struct Node {
    is_leaf: bool,
    /// Sorted by key. The value of an inner entry is the number of a page, whose keys are
    /// not below this one, but for the first entry, which has all that are below the second.
    entries: Vec<(Bytes, Bytes)>,
}

/// What is left of a node after a change.
enum Left {
    All,
    /// The node was split: the first key of the right half, and its page.
    Split(Bytes, PageNo),
    Nothing,
}

fn number(bytes: &[u8]) -> Result<u32> {
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn page_in(value: &[u8]) -> Result<PageNo> {
    Ok(PageNo::new(number(value)?)?)
}

fn take<'b>(rest: &mut &'b [u8], len: usize) -> Result<&'b [u8]> {
    let (taken, behind) = rest.split_at_checked(len).ok_or("a node is cut")?;
    *rest = behind;
    Ok(taken)
}

fn take_len(rest: &mut &[u8]) -> Result<usize> {
    Ok(u16::from_le_bytes(take(rest, 2)?.try_into()?).into())
}

impl Node {
    fn empty_leaf() -> Self {
        Node {
            is_leaf: true,
            entries: Vec::new(),
        }
    }

    fn read(pages: &impl Pages, page: PageNo) -> Result<Self> {
        let content = pages.page(page)?;
        let mut rest = &content[..];
        let is_leaf = take(&mut rest, 1)? == [1];
        let count = take_len(&mut rest)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (key, value) = (take_len(&mut rest)?, take_len(&mut rest)?);
            let key = take(&mut rest, key)?.to_vec();
            entries.push((key, take(&mut rest, value)?.to_vec()));
        }
        Ok(Node { is_leaf, entries })
    }

    fn encode(&self) -> Result<Bytes> {
        let mut bytes = vec![u8::from(self.is_leaf)];
        bytes.extend(u16::try_from(self.entries.len())?.to_le_bytes());
        for (key, value) in &self.entries {
            bytes.extend(u16::try_from(key.len())?.to_le_bytes());
            bytes.extend(u16::try_from(value.len())?.to_le_bytes());
            bytes.extend(key);
            bytes.extend(value);
        }
        Ok(bytes)
    }

    /// Where the entry for `key` is, or would be in a leaf.
    fn position(&self, key: &[u8]) -> std::result::Result<usize, usize> {
        self.entries
            .binary_search_by(|(entry, _)| entry.as_slice().cmp(key))
    }

    /// The entry of an inner node whose page has `key`.
    fn child(&self, key: &[u8]) -> usize {
        match self.position(key) {
            Ok(at) => at,
            Err(at) => at.saturating_sub(1),
        }
    }

    /// How many entries fill `half` the bytes. As no entry has more than a quarter of a page,
    /// both halves fit.
    fn middle(&self, half: usize) -> usize {
        let lens = self
            .entries
            .iter()
            .map(|(key, value)| key.len() + value.len() + 4);
        let ends = lens.scan(0, |end, len| {
            *end += len;
            Some(*end)
        });
        ends.take_while(|end| *end < half).count()
    }

    /// Writes the node to `page`, and what does not fit to a new page.
    fn write(mut self, tx: &mut WriteTx, page: PageNo) -> Result<Left> {
        if self.entries.is_empty() {
            return Ok(Left::Nothing);
        }
        let mut bytes = self.encode()?;
        let mut left = Left::All;
        if bytes.len() > tx.page_size().len() {
            let right = Node {
                is_leaf: self.is_leaf,
                entries: self.entries.split_off(self.middle(bytes.len() / 2)),
            };
            let (first, new) = (right.entries[0].0.clone(), allocate(tx)?);
            right.write(tx, new)?;
            bytes = self.encode()?;
            left = Left::Split(first, new);
        }
        tx.page_mut(page)?[..bytes.len()].copy_from_slice(&bytes);
        Ok(left)
    }
}

/// A page of the free list, or a new one.
fn allocate(tx: &mut WriteTx) -> Result<PageNo> {
    let Ok(page) = page_in(&tx.page(PageNo::ONE)?[FREE]) else {
        return Ok(tx.allocate()?);
    };
    let next = tx.page(page)?[..4].to_vec();
    tx.page_mut(PageNo::ONE)?[FREE].copy_from_slice(&next);
    Ok(page)
}

fn free(tx: &mut WriteTx, page: PageNo) -> Result<()> {
    let next = tx.page(PageNo::ONE)?[FREE].to_vec();
    tx.page_mut(page)?[..4].copy_from_slice(&next);
    tx.page_mut(PageNo::ONE)?[FREE].copy_from_slice(&page.get().to_le_bytes());
    Ok(())
}

fn root(pages: &impl Pages) -> Result<PageNo> {
    page_in(&pages.page(PageNo::ONE)?[ROOT])
}

fn set_root(tx: &mut WriteTx, page: PageNo) -> Result<()> {
    tx.page_mut(PageNo::ONE)?[ROOT].copy_from_slice(&page.get().to_le_bytes());
    Ok(())
}

/// Makes the tree, if there is none.
fn create(tx: &mut WriteTx) -> Result<()> {
    if root(tx).is_err() {
        let page = allocate(tx)?;
        // Zeros are an inner node, so an empty leaf is written by hand.
        let empty = Node::empty_leaf().encode()?;
        tx.page_mut(page)?[..empty.len()].copy_from_slice(&empty);
        set_root(tx, page)?;
    }
    Ok(())
}

fn get(pages: &impl Pages, key: &[u8]) -> Result<Option<Bytes>> {
    let mut node = Node::read(pages, root(pages)?)?;
    while !node.is_leaf {
        node = Node::read(pages, page_in(&node.entries[node.child(key)].1)?)?;
    }
    let found = node.position(key).ok();
    Ok(found.map(|at| node.entries.swap_remove(at).1))
}

/// Calls `each` with all keys in `range` in order.
fn scan(
    pages: &impl Pages,
    page: PageNo,
    range: &Range<&[u8]>,
    each: &mut impl FnMut(&[u8], &[u8]),
) -> Result<()> {
    let node = Node::read(pages, page)?;
    let first = match node.is_leaf {
        true => node.position(range.start).unwrap_or_else(|at| at),
        false => node.child(range.start),
    };
    for (at, (key, value)) in node.entries.iter().enumerate().skip(first) {
        // The first key of an inner node bounds nothing.
        if key.as_slice() >= range.end && (node.is_leaf || at > 0) {
            break;
        }
        match node.is_leaf {
            true => each(key, value),
            false => scan(pages, page_in(value)?, range, each)?,
        }
    }
    Ok(())
}

/// Sets the value of `key`, or removes it, and returns what it was.
fn set(tx: &mut WriteTx, key: &[u8], value: Option<&[u8]>) -> Result<Option<Bytes>> {
    let most = tx.page_size().len() / 4 - 8;
    if key.len() + value.map_or(0, <[u8]>::len) > most {
        return Err(format!("a key and its value may have {most} bytes").into());
    }
    let top = root(tx)?;
    let (before, left) = change(tx, top, key, value)?;
    match left {
        Left::All => {}
        Left::Split(first, right) => {
            let child = |page: PageNo| page.get().to_le_bytes().to_vec();
            let entries = vec![(Bytes::new(), child(top)), (first, child(right))];
            let page = allocate(tx)?;
            let is_leaf = false;
            Node { is_leaf, entries }.write(tx, page)?;
            set_root(tx, page)?;
        }
        Left::Nothing => {
            free(tx, top)?;
            tx.page_mut(PageNo::ONE)?[ROOT].fill(0);
            create(tx)?;
        }
    }
    // A root with one child is not needed.
    let node = Node::read(tx, root(tx)?)?;
    if let (false, [(_, only)]) = (node.is_leaf, &node.entries[..]) {
        let unused = root(tx)?;
        set_root(tx, page_in(only)?)?;
        free(tx, unused)?;
    }
    Ok(before)
}

fn change(
    tx: &mut WriteTx,
    page: PageNo,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(Option<Bytes>, Left)> {
    let mut node = Node::read(tx, page)?;
    if node.is_leaf {
        let (at, before) = match node.position(key) {
            Ok(at) => (at, Some(node.entries.remove(at).1)),
            Err(at) => (at, None),
        };
        if let Some(value) = value {
            node.entries.insert(at, (key.to_vec(), value.to_vec()));
        } else if before.is_none() {
            return Ok((None, Left::All));
        }
        return Ok((before, node.write(tx, page)?));
    }
    let at = node.child(key);
    let child = page_in(&node.entries[at].1)?;
    let (before, left) = change(tx, child, key, value)?;
    match left {
        Left::All => return Ok((before, Left::All)),
        Left::Split(first, right) => {
            let entry = (first, right.get().to_le_bytes().to_vec());
            node.entries.insert(at + 1, entry);
        }
        Left::Nothing => {
            node.entries.remove(at);
            free(tx, child)?;
        }
    }
    Ok((before, node.write(tx, page)?))
}

/// Counts the pages of the tree below `page`, and checks the order of all keys.
fn check(pages: &impl Pages, page: PageNo, above: &mut Option<Bytes>) -> Result<u32> {
    let node = Node::read(pages, page)?;
    let mut count = 1;
    for (key, value) in &node.entries {
        if node.is_leaf {
            assert!(
                above.as_ref().is_none_or(|above| above < key),
                "the keys are sorted"
            );
            *above = Some(key.clone());
        } else {
            count += check(pages, page_in(value)?, above)?;
        }
    }
    Ok(count)
}

const WORKERS: u64 = 3;
const CHANGES: u64 = 1500;
const KEYS: u64 = 300;

/// What a worker does, one change after the other: a key, and its value unless it is removed.
fn changes(worker: u64) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
    let mut random = worker + 1;
    let mut below = move |limit: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) % limit
    };
    (0..CHANGES).map(move |change| {
        let key = format!("{worker}-{:05}", below(KEYS)).into_bytes();
        // Towards the end most keys are removed, so that pages become free.
        let removes = below(CHANGES) < change;
        let len = usize::try_from(below(400)).unwrap_or(0);
        (key, (!removes).then(|| vec![change.to_le_bytes()[0]; len]))
    })
}

fn work(path: &Path, worker: u64) -> Result<()> {
    let store = open(path)?;
    let mut model = BTreeMap::new();
    for (key, value) in changes(worker) {
        let before = store.write(|tx| set(tx, &key, value.as_deref()))?;
        assert_eq!(before, model.remove(&key), "no other worker has these keys");
        if let Some(value) = value {
            model.insert(key, value);
        }
    }
    Ok(store.close()?)
}

fn open(path: &Path) -> Result<Database> {
    let options = Options::new().kind(DatabaseKind::PageStore);
    let store = options.synchronous(Synchronous::Normal).open(path)?;
    store.write(create)?;
    Ok(store)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    if let [_, worker, path] = arguments.as_slice() {
        return work(Path::new(path), worker.parse()?);
    }
    let directory = env::temp_dir().join(format!("wal-kv-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let path = directory.join("store");
    let store = open(&path)?;
    let start = |worker: u64| {
        let mut command = Command::new(env::current_exe()?);
        command.arg(worker.to_string()).arg(&path).spawn()
    };
    let mut workers: Vec<Child> = (0..WORKERS).map(start).collect::<std::io::Result<_>>()?;
    let mut snapshots = 0;
    while workers
        .iter_mut()
        .any(|worker| matches!(worker.try_wait(), Ok(None)))
    {
        // Each scan sees one state, whatever is committed and moved at the same time.
        let read = store.begin_read()?;
        check(&read, root(&read)?, &mut None)?;
        snapshots += 1;
    }
    for mut worker in workers {
        assert!(worker.wait()?.success());
    }

    let read = store.begin_read()?;
    let mut found = BTreeMap::new();
    let mut keep = |key: &[u8], value: &[u8]| drop(found.insert(key.to_vec(), value.to_vec()));
    scan(&read, root(&read)?, &(&b"0"[..]..&b"9"[..]), &mut keep)?;
    let mut expected = BTreeMap::new();
    for (key, value) in (0..WORKERS).flat_map(changes) {
        match value {
            Some(value) => expected.insert(key, value),
            None => expected.remove(&key),
        };
    }
    assert!(found == expected, "the store has what the workers left");
    let (start, end) = (&b"1-00100"[..], &b"1-00200"[..]);
    let (mut some, range) = (0, start.to_vec()..end.to_vec());
    scan(&read, root(&read)?, &(start..end), &mut |_, _| some += 1)?;
    assert_eq!(
        some,
        expected.range(range).count(),
        "a range is a part of it"
    );
    for (key, value) in expected.iter().step_by(7) {
        assert_eq!(get(&read, key)?.as_ref(), Some(value));
    }

    let used = 1 + check(&read, root(&read)?, &mut None)?;
    let (mut free, mut next) = (0, page_in(&read.page(PageNo::ONE)?[FREE]));
    while let Ok(page) = next {
        free += 1;
        next = page_in(&read.page(page)?[..4]);
    }
    assert_eq!(used + free, read.page_count(), "no page is lost");
    let keys = expected.len();
    println!("{keys} keys in {used} pages, {free} free; {snapshots} whole snapshots meanwhile");
    drop(read);
    store.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
