//! Each seeded mutation turns the test red that is named for it: the test is
//! run by this very binary, in a process of its own, once with the rule kept
//! and once with it broken.
#![allow(clippy::unwrap_used)] // A test that cannot start its process fails.

use std::path::Path;
use std::process::Command;

use wal_conformance::{Attachment, Backend, CaughtBy, MUTATIONS, cases};
use wal_core::Result;
use wal_core::storage::{OpenMode, OsStorage};
use wal_core::testing::Mutation;
use wal_inproc::{InProcessOptions, InProcessWalCoordination};

struct InProcess;

impl Backend for InProcess {
    type Coordination = InProcessWalCoordination;
    const MANY_ATTACHMENTS: bool = false;

    fn attach(path: &Path) -> Result<Attachment<Self::Coordination>> {
        let (coordination, database) =
            InProcessWalCoordination::open(path, OpenMode::Existing, InProcessOptions::default())?;
        let storage = Box::new(OsStorage::open(database, false)?);
        // Copied: a protocol with a broken rule keeps no mapped page as it is.
        Ok(Attachment::new(coordination, storage))
    }
}

mod suite {
    use super::InProcess;

    wal_conformance::conformance_suite!(InProcess);
}

fn passes(case: &str, mutation: Option<Mutation>) -> bool {
    // Who breaks a rule may make others wait for ever.
    let mut command = Command::new("timeout");
    command.arg("120").arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("suite::{case}"), "--quiet"]);
    command.env_remove("WAL_BROKEN_RULE");
    if let Some(mutation) = mutation {
        command.env("WAL_BROKEN_RULE", mutation.name());
    }
    command.output().unwrap().status.success()
}

#[test]
fn every_mutation_has_a_test_that_catches_it() {
    for &mutation in Mutation::ALL {
        let rows = MUTATIONS
            .iter()
            .filter(|(named, _)| *named == mutation)
            .count();
        assert_eq!(rows, 1, "{mutation:?} has {rows} rows");
    }
    let known = cases::<InProcess>();
    for (mutation, caught_by) in MUTATIONS {
        if let CaughtBy::Case(name) = caught_by {
            assert!(
                known.iter().any(|case| case.name == *name),
                "{mutation:?}: no case {name}"
            );
        }
    }
}

#[test]
fn every_mutation_turns_its_test_red() {
    let survivors: Vec<String> = MUTATIONS
        .iter()
        .filter_map(|&(mutation, caught_by)| match caught_by {
            CaughtBy::Case(case) => Some((mutation, case)),
            // `make test-mutations` runs loom with these.
            CaughtBy::Loom(_) | CaughtBy::Killed(_) => None,
        })
        .filter(|&(mutation, case)| {
            assert!(passes(case, None), "{case} fails without any mutation");
            passes(case, Some(mutation))
        })
        .map(|(mutation, case)| format!("{} survives {case}", mutation.name()))
        .collect();
    assert!(survivors.is_empty(), "{survivors:#?}");
}
