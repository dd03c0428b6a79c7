//! Whatever the `-shm` file holds that is no sound index, the pages are those
//! of the log: when the first opener resets it, and when a live peer is
//! attached, so that it is mended in place.

use std::fs;

use fixtures::{Fixture, INDEX};
use integration::reading::{Contents, Opener};
use integration::worker::BackendKind;

use super::forged_index::{ForgedIndex, MAX_FRAME, PAGE_COUNT};
use super::peer::Peer;

/// Logs of several shapes: many commits, stale tails, fewer pages than before,
/// uncommitted frames, a partial backfill.
const FIXTURES: [&str; 5] = [
    "pages-512",
    "several-generations",
    "shrunk",
    "uncommitted-tail",
    "with-shm",
];

const BLOCK: usize = 32768;

/// Contents of a `-shm` file that are no index of any of the fixtures, by what
/// they are.
fn damaged() -> Vec<(String, Vec<u8>)> {
    let sound = fixtures::named("with-shm").unwrap().read(INDEX).unwrap();
    let mut damaged = Vec::new();
    for len in [0, 1, 3, 47, 95, 96, 135, 136, 4096, 16384, BLOCK - 1] {
        damaged.push((format!("cut to {len} bytes"), sound[..len].to_vec()));
    }
    for (seed, len) in (1..).zip([100, 4096, BLOCK, BLOCK + 5, 2 * BLOCK, 3 * BLOCK]) {
        let mut garbage = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut garbage);
        damaged.push((format!("{len} bytes of garbage, seed {seed}"), garbage));
    }
    damaged.push(("all ones".into(), vec![0xff; BLOCK]));
    damaged.push(("all ones, two blocks".into(), vec![0xff; 2 * BLOCK]));
    damaged.push(("all zeros".into(), vec![0; BLOCK]));
    // A sound header in both copies, but the first with one bit changed.
    for byte in [0, 8, 12, 16, 20, 24, 32, 40, 47] {
        let mut flipped = sound.clone();
        flipped[byte] ^= 0x10;
        damaged.push((format!("bit flipped in byte {byte} of the header"), flipped));
    }
    damaged
}

fn expected(fixture: &Fixture) -> Contents {
    Contents {
        page_size: fixture.facts.page_size,
        max_frame: fixture.facts.log.as_ref().unwrap().frames_committed,
        pages: fixture.facts.pages.clone(),
    }
}

/// Reads copies of `fixture` whose index holds `index`, if any.
fn read_with_index(fixture: &Fixture, index: Option<&[u8]>, case: &str) {
    for opener in Opener::ALL {
        let copy = fixture.copy().unwrap();
        match index {
            Some(index) => fs::write(copy.index(), index).unwrap(),
            None => drop(fs::remove_file(copy.index())),
        }
        let read = opener.read(&copy.database()).unwrap();
        let name = &fixture.facts.name;
        assert_eq!(read, expected(fixture), "{name} by {opener:?}: {case}");
    }
}

#[test]
fn the_first_opener_reads_the_log_whatever_is_left_of_the_index() {
    let stale = fixtures::named("stale-shm").unwrap().read(INDEX).unwrap();
    let of_another = fixtures::named("with-shm").unwrap().read(INDEX).unwrap();
    for name in FIXTURES {
        let fixture = fixtures::named(name).unwrap();
        read_with_index(&fixture, None, "no index");
        read_with_index(&fixture, Some(&stale), "a sound index of other salts");
        read_with_index(&fixture, Some(&of_another), "a sound index of another log");
        for (case, index) in damaged() {
            read_with_index(&fixture, Some(&index), &case);
        }
    }
}

#[test]
fn a_damaged_index_is_mended_in_place_while_a_peer_is_attached() {
    for name in FIXTURES {
        let fixture = fixtures::named(name).unwrap();
        for (case, index) in damaged() {
            for opener in Opener::ALL {
                if opener.backend == BackendKind::InProcess {
                    continue;
                }
                let copy = fixture.copy().unwrap();
                fs::write(copy.index(), &index).unwrap();
                let _peer = Peer::attach(&copy.index());
                let read = opener.read(&copy.database()).unwrap();
                assert_eq!(read, expected(&fixture), "{name} by {opener:?}: {case}");
            }
        }
    }
}

/// What a writer leaves that dies between the two copies of the header.
#[test]
fn two_sound_headers_that_differ_are_mended_in_place() {
    let fixture = fixtures::named("with-shm").unwrap();
    let commits = &fixture.facts.log.as_ref().unwrap().commits;
    let older = &commits[commits.len() - 2];
    let newer = fixture.read(INDEX).unwrap();
    let mut forged = ForgedIndex::from(newer.clone());
    forged.set_header(MAX_FRAME, u32::try_from(older.frame).unwrap());
    forged.set_header(PAGE_COUNT, older.page_count);
    let older = forged.seal();
    for (first, second) in [(&older, &newer), (&newer, &older)] {
        let mut index = newer.clone();
        index[..48].copy_from_slice(&first[..48]);
        index[48..96].copy_from_slice(&second[..48]);
        for opener in Opener::ALL {
            if opener.backend == BackendKind::InProcess {
                continue;
            }
            let copy = fixture.copy().unwrap();
            fs::write(copy.index(), &index).unwrap();
            let _peer = Peer::attach(&copy.index());
            assert_eq!(opener.read(&copy.database()).unwrap(), expected(&fixture));
            let mended = fs::read(copy.index()).unwrap();
            assert_eq!(mended[..48], mended[48..96], "{opener:?}");
        }
    }
}

#[test]
fn a_live_index_with_a_partial_backfill_is_used_as_it_is() {
    let fixture = fixtures::named("with-shm").unwrap();
    for opener in Opener::ALL {
        if opener.backend == BackendKind::InProcess {
            continue;
        }
        let copy = fixture.copy().unwrap();
        let _peer = Peer::attach(&copy.index());
        let before = fs::read(copy.index()).unwrap();
        let read = opener.read(&copy.database()).unwrap();
        assert_eq!(read, expected(&fixture), "{opener:?}");
        let after = fs::read(copy.index()).unwrap();
        assert_eq!(before[..96], after[..96], "the header was written again");
    }
}
