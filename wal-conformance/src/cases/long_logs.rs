//! Logs of several blocks, which are read by a private map of pages to frames.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use crate::scene::{Scene, User, content, versions};
use crate::subject::Subject;
use wal_core::format::frame_offset;
use wal_core::types::{FrameNo, PageNo, PageSize};

/// Three transactions on all of these pages need more than two blocks.
const PAGES: u32 = 3000;

fn all() -> Vec<u32> {
    (1..=PAGES).collect()
}

/// Every other page.
fn odd() -> Vec<u32> {
    (1..=PAGES).step_by(2).collect()
}

/// A writer, whose log has five versions of all pages, and a reader that has
/// read it by a map.
fn with_map<B: Subject>(scene: &Scene<B>) -> (User<B>, User<B>) {
    let (writer, reader) = scene.two();
    commit_each(&writer, &all(), 1..=5);
    assert_eq!(reader.versions(), vec![5; PAGES as usize]);
    assert_has_map(&reader, 2);
    (writer, reader)
}

/// Commits each of `versions` to `pages`.
fn commit_each<B: Subject>(
    writer: &User<B>,
    pages: &[u32],
    versions: std::ops::RangeInclusive<u32>,
) {
    for version in versions {
        writer.commit(pages, version);
    }
}

/// What all pages hold if `pages` are at `version` and the others at `before`.
fn mixed(pages: &[u32], version: u32, before: u32) -> Vec<u32> {
    let mut expected = vec![before; PAGES as usize];
    for &page in pages {
        expected[page as usize - 1] = version;
    }
    expected
}

/// Asserts that `user` reads by a map that has at least `blocks` blocks.
fn assert_has_map<B: Subject>(user: &User<B>, blocks: u32) {
    let frames = user.wal.frames_in_map();
    assert!(frames >= 4062 + 4096 * (blocks - 1), "{frames} frames");
}

pub(crate) fn a_long_log_that_begins_anew_is_read_by_a_new_map<B: Subject>() {
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = with_map(&scene);
    let before = writer.header();
    writer.checkpoint_all();
    // Other pages in the same frames.
    let odd = odd();
    commit_each(&writer, &odd, 6..=11);
    let early = reader.read();
    assert_ne!(writer.header().salts(), before.salts());
    assert_eq!(versions::<B>(&early), mixed(&odd, 11, 5));
    commit_each(&writer, &odd, 12..=16);
    assert_eq!(reader.versions(), mixed(&odd, 16, 5));
    assert_has_map(&reader, 2);
    assert_eq!(versions::<B>(&early), mixed(&odd, 11, 5));
}

/// Loses the log from `first` on, which only a failing disk or a peer that
/// breaks the rules makes it do. The next to look at it recovers.
fn lose_the_end<B: Subject>(scene: &Scene<B>, writer: &User<B>, first: u32) {
    let first = FrameNo::new(first).expect("a frame number");
    let at = frame_offset(first, PageSize::MIN);
    let mut log = fs::OpenOptions::new()
        .write(true)
        .open(scene.log_path())
        .expect("the log is opened");
    let len = log.metadata().expect("it is there").len();
    log.seek(SeekFrom::Start(at)).expect("the log is there");
    let lost = usize::try_from(len - at).expect("it fits");
    log.write_all(&vec![0; lost]).expect("the log is written");
    writer.damage_header();
}

/// A generation comes back, and goes on differently.
pub(crate) fn a_log_that_lost_its_end_is_not_read_by_the_map_of_before<B: Subject>() {
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = with_map(&scene);
    let before = writer.header();
    lose_the_end(&scene, &writer, PAGES + 1);
    assert_eq!(writer.versions(), vec![1; PAGES as usize]);
    assert_has_map(&reader, 2);
    let odd = odd();
    commit_each(&writer, &odd, 6..=13);
    assert_eq!(writer.header().salts(), before.salts());
    assert_eq!(writer.header().max_frame(), before.max_frame());
    assert_eq!(reader.versions(), mixed(&odd, 13, 1));
    assert_has_map(&reader, 2);
}

/// As before, and all that is lost lies behind the last whole block.
pub(crate) fn a_log_that_lost_a_part_of_a_block_is_not_read_by_the_map_of_before<B: Subject>() {
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = with_map(&scene);
    let (some, others): (Vec<u32>, Vec<u32>) = ((1..=600).collect(), (1001..=1600).collect());
    writer.commit(&some, 6);
    assert_eq!(reader.versions(), mixed(&some, 6, 5));
    let before = writer.header();
    assert_eq!(reader.wal.frames_in_map(), before.max_frame(), "all is fed");
    lose_the_end(&scene, &writer, 5 * PAGES + 1);
    assert_eq!(writer.versions(), vec![5; PAGES as usize]);
    writer.commit(&others, 7);
    assert_eq!(writer.header().salts(), before.salts());
    assert_eq!(writer.header().max_frame(), before.max_frame());
    assert_eq!(reader.versions(), mixed(&others, 7, 5));
}

pub(crate) fn an_old_snapshot_sees_its_frames_beside_a_map_of_newer_ones<B: Subject>() {
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = scene.two();
    commit_each(&writer, &all(), 1..=3);
    let old = reader.read();
    let saved = old.snapshot().save();
    let odd = odd();
    commit_each(&writer, &odd, 4..=11);
    assert_eq!(reader.versions(), mixed(&odd, 11, 3));
    assert_has_map(&reader, 4);
    assert_eq!(versions::<B>(&old), vec![3; PAGES as usize]);
    // What is backfilled is not looked for, but by a saved snapshot.
    assert_eq!(writer.checkpoint().backfilled, 3 * PAGES);
    commit_each(&writer, &odd, 12..=12);
    let opened = reader.wal.open_snapshot(&saved).expect("the log has it");
    assert_eq!(versions::<B>(&opened), vec![3; PAGES as usize]);
    assert_eq!(reader.versions(), mixed(&odd, 12, 3));
    assert_eq!(versions::<B>(&old), vec![3; PAGES as usize]);
}

/// In a log whose file still has the frames of a longer one.
pub(crate) fn frames_that_come_to_a_block_later_are_found_beside_a_map<B: Subject>() {
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = scene.two();
    commit_each(&writer, &all(), 1..=5);
    writer.checkpoint_all();
    commit_each(&writer, &all(), 6..=8);
    assert_eq!(reader.versions(), vec![8; PAGES as usize]);
    assert_has_map(&reader, 1);
    let some: Vec<u32> = (1..=PAGES).step_by(30).collect();
    writer.commit(&some, 9);
    assert_eq!(reader.versions(), mixed(&some, 9, 8));
}

/// One transaction that commits again and again and reads on.
pub(crate) fn a_writer_that_reads_on_finds_its_commits_in_a_long_log<B: Subject>() {
    let scene = Scene::<B>::new(PAGES);
    let (writer, reader) = scene.two();
    let mut tx = writer.write();
    for version in 1..=6 {
        let pages: Vec<(PageNo, Vec<u8>)> = (1..=PAGES)
            .filter(|page| version == 1 || page % version != 0)
            .map(|page| {
                (
                    PageNo::new(page).expect("a page number"),
                    content(page, version),
                )
            })
            .collect();
        let frames: Vec<(PageNo, &[u8])> = pages.iter().map(|(no, page)| (*no, &**page)).collect();
        tx.commit_frames(&frames, PAGES).expect("it is committed");
        for page in (1..=PAGES).step_by(7) {
            let newest = (1..=version).rev().find(|&v| v == 1 || page % v != 0);
            let found = tx.page(PageNo::new(page).expect("a page number"));
            let expected = content(page, newest.expect("version 1 has all"));
            assert_eq!(*found.expect("the page is read"), expected[..]);
        }
    }
    assert_has_map(&writer, 1);
    let read = tx.into_read().expect("it goes on as a reader");
    let seen = versions::<B>(&read);
    assert_eq!(seen, reader.versions());
    assert_eq!(seen[..7], [6, 6, 6, 6, 6, 5, 6]);
}
