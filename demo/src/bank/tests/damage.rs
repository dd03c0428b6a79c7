//! Pages that no SQLite wrote.

use super::*;

/// Writes one balance through a layout that may not fit the pages any more.
fn patch_touches_nothing_but_its_value(
    pages: &mut Pages,
    layout: &Layout,
    random: &mut fastrand::Rng,
    seed: u64,
) {
    let id = random.usize(..layout.accounts().len());
    let location = layout.accounts()[id];
    let start = pages.range(location.page).unwrap().start + location.offset;
    let mut expected = pages.bytes.clone();
    if pages.set_balance(layout, id, 1).is_ok() {
        expected[start..start + 6].copy_from_slice(&[1, 0, 0, 0, 0, 1]);
    }
    assert!(pages.bytes == expected, "seed {seed}");
}

#[test]
fn pages_that_point_in_a_circle_end_the_walk() {
    let bank = Bank::new(5_000, 512);
    let mut pages = bank.pages();
    let geometry = pages.layout().unwrap().geometry();
    let root = table_root(geometry, "account", |page| pages.read(page)).unwrap();
    pages.page_mut(root)[8..12].copy_from_slice(&root.to_be_bytes());
    let mut reads = 0;
    let walk = locate_column(geometry, root, 1, |page| {
        reads += 1;
        anyhow::ensure!(reads < 10_000, "the walk does not end");
        pages.read(page)
    });
    let error = walk.unwrap_err();
    assert!(matches!(refusal(&error), BankError::Corrupt { page, .. } if *page == root));
}

#[test]
fn cells_that_would_lie_over_header_and_pointers_are_refused() {
    let bank = Bank::new(10, 512);
    let sound = bank.pages();
    let layout = sound.layout().unwrap();
    let page = layout.accounts()[0].page;
    // Each damage: where in the page, and what is put there. A cell of size 0
    // at the pointer array, content that starts within it, content that starts
    // behind the page, more cells than there is room for.
    for (at, value) in [(8, 12), (5, 20), (5, 513), (3, 400)] {
        let mut pages = sound.clone();
        let field = &mut pages.page_mut(page)[at..at + 2];
        field.copy_from_slice(&u16::to_be_bytes(value));
        let error = pages.layout().unwrap_err();
        let BankError::Corrupt {
            page: named,
            reason,
        } = refusal(&error)
        else {
            panic!("{value} at {at}: {error}");
        };
        assert_eq!(*named, page);
        assert!(reason.contains("content"), "{value} at {at}: {reason}");
        let moved = BankError::Moved { page };
        assert_eq!(pages.balance(&layout, 0).unwrap_err(), moved);
    }
}

#[test]
fn a_page_of_another_length_is_refused() {
    let bank = Bank::new(5, 512);
    let pages = bank.pages();
    let layout = pages.layout().unwrap();
    let location = layout.accounts()[0];
    for length in [0, 1, 8, 511, 513] {
        let page = vec![0x0d; length];
        let error = layout.read_balance(&page, location).unwrap_err();
        assert!(matches!(error, BankError::Corrupt { .. }));
        assert!(layout.check_page_one(&page).is_err());
        assert!(Layout::load(|_| Ok(&page)).is_err());
    }
}

#[test]
fn flipped_bytes_are_an_error_or_a_value_and_never_a_panic() {
    let bank = Bank::new(300, 512);
    bank.sql("UPDATE account SET balance = balance + 1");
    let sound = bank.pages();
    let layout = sound.layout().unwrap();
    let pages_in_file = sound.bytes.len() / sound.size;
    let mut refused = 0;
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pages = sound.clone();
        for _ in 0..random.usize(1..=16) {
            let page = random.usize(..pages_in_file) * pages.size;
            // Half of the flips hit a header or the pointers behind it.
            let at = match random.bool() {
                true if page == 0 => random.usize(16..140),
                true => page + random.usize(..40),
                false => page + random.usize(..pages.size),
            };
            pages.bytes[at] = random.u8(..);
        }
        if let Ok(loaded) = pages.layout() {
            loaded.total(|page| pages.read(page)).ok();
        } else {
            refused += 1;
        }
        layout.total(|page| pages.read(page)).ok();
        patch_touches_nothing_but_its_value(&mut pages, &layout, &mut random, seed);
    }
    assert!(refused > 1_000, "only {refused} of the damages were found");
}

#[test]
fn a_file_of_noise_is_an_error() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pages = Pages {
            size: 512,
            bytes: std::iter::repeat_with(|| random.u8(..))
                .take(4096)
                .collect(),
        };
        assert!(pages.layout().is_err(), "seed {seed}");
        // With the sizes and kinds of page in place, the noise gets further.
        pages.bytes[..21].copy_from_slice(b"SQLite format 3\0\x02\0\x02\x02\0");
        for page in 0..8 {
            let header = if page == 0 { 100 } else { page * 512 };
            pages.bytes[header] = if random.bool() { 5 } else { 13 };
            pages.bytes[header + 3..header + 7].copy_from_slice(&[0, 20, 0, 160]);
        }
        assert!(pages.layout().is_err(), "seed {seed}");
    }
}
