//! Damaged files of every kind end each command with an exit code of its own, never a panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;

use common::command;

/// Overwrites parts of `bytes` with others.
fn damage(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    match rng.u8(0..4) {
        0 => bytes.truncate(rng.usize(0..=bytes.len())),
        1 => bytes.fill_with(|| rng.u8(..)),
        _ => {
            for _ in 0..rng.usize(1..40) {
                // The headers at the start count most.
                let end = if rng.bool() {
                    bytes.len().min(140)
                } else {
                    bytes.len()
                };
                let at = rng.usize(0..end.max(1));
                let value = *rng.choice(&[0, 1, 0x7f, 0xff, rng.clone().u8(..)]).unwrap();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
        }
    }
}

#[test]
fn damaged_files_end_each_command_without_a_panic() {
    let names = ["with-shm", "stale-shm", "several-generations", "pages-512"];
    for seed in 0..40_u64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let copy = fixtures::named(rng.choice(&names).unwrap())
            .unwrap()
            .copy()
            .unwrap();
        for path in [copy.database(), copy.log(), copy.index()] {
            if let Ok(mut bytes) = fs::read(&path)
                && rng.u8(0..3) > 0
            {
                damage(&mut rng, &mut bytes);
                fs::write(&path, bytes).unwrap();
            }
        }
        let to = tempfile::tempdir().unwrap();
        let new = to.path().join("new.db");
        let new = new.to_str().unwrap();
        for arguments in [
            &["verify"][..],
            &["frames", "--all"],
            &["frames", "--all", "--page", "1", "--hex"],
            &["recover", "--budget", "1ms", "--to", new],
        ] {
            let output = command(arguments.iter().copied())
                .arg(copy.database())
                .output()
                .unwrap();
            let code = output.status.code();
            assert!(
                matches!(code, Some(0 | 1 | 3 | 5)),
                "seed {seed}, {arguments:?}: {output:?}"
            );
            let lines = output.stderr.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(
                lines,
                usize::from(matches!(code, Some(1 | 3))),
                "seed {seed}: {output:?}"
            );
        }
    }
}
