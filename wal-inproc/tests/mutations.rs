//! Each rule that is broken turns the test red that is named for it: the test is
//! run by this very binary, in a process of its own, with the rule kept and with
//! it broken.
#![allow(clippy::panic, clippy::unwrap_used)] // A test that cannot start its process fails.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use wal_conformance::{Attachment, CaughtBy, RULES, Subject, cases};
use wal_core::Result;
use wal_core::storage::{OpenMode, OsStorage};
use wal_core::testing::Rule;
use wal_inproc::{InProcessOptions, InProcessWalCoordination};

struct InProcess;

impl Subject for InProcess {
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

fn passes(case: &str, broken: Option<&str>) -> bool {
    // A process that breaks a rule may wait for ever.
    let mut command = Command::new("timeout");
    command.arg("120").arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("suite::{case}"), "--quiet"]);
    command.env_remove("WAL_BROKEN_RULE");
    if let Some(name) = broken {
        command.env("WAL_BROKEN_RULE", name);
    }
    command.output().unwrap().status.success()
}

/// Runs the case of each rule with the rule kept and with it broken.
fn assert_each_turns_red<'c>(rules: impl IntoIterator<Item = (&'c str, &'c str)>) {
    let mut green = HashSet::new();
    let mut survivors = Vec::new();
    for (name, case) in rules {
        if green.insert(case) {
            assert!(passes(case, None), "{case} fails without a broken rule");
        }
        if passes(case, Some(name)) {
            survivors.push(format!("{name} survives {case}"));
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
}

fn assert_is_case(name: &str, case: &str) {
    let known = cases::<InProcess>();
    let is_known = known.iter().any(|known| known.name == case);
    assert!(is_known, "{name}: no case {case}");
}

/// The name of each patch, and the test that it says turns red.
fn patches() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mutations");
    let paths = std::fs::read_dir(folder).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    let mut patches: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let field = |name: &str| {
                let found = text.lines().find_map(|line| line.strip_prefix(name));
                found.unwrap_or_else(|| panic!("{path:?} has no line {name}"))
            };
            assert!(!field("Rule: ").is_empty() && !field("Mutation: ").is_empty());
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let switch = format!("is_broken(\"{name}\")");
            let is_switched = text.replace(char::is_whitespace, "").contains(&switch);
            assert!(is_switched, "{path:?} has no {switch}");
            (name, field("Red: ").to_owned())
        })
        .collect();
    patches.sort();
    patches
}

#[test]
fn every_rule_has_a_test_that_catches_its_break() {
    for &rule in Rule::ALL {
        let rows = RULES.iter().filter(|(named, _)| *named == rule).count();
        assert_eq!(rows, 1, "{rule:?} has {rows} rows");
    }
    for (rule, caught_by) in RULES {
        if let CaughtBy::Case(case) = caught_by {
            assert_is_case(rule.name(), case);
        }
    }
}

#[test]
fn every_patch_names_a_test_that_turns_red() {
    for (name, red) in patches() {
        match red.split_once(' ') {
            Some(("conformance", case)) => assert_is_case(&name, case),
            // `make test-mutations` runs this one.
            Some(("killed_worker", _)) => {}
            _ => panic!("{name}: {red}"),
        }
    }
}

#[test]
fn every_broken_rule_turns_its_test_red() {
    assert_each_turns_red(
        RULES
            .iter()
            .filter_map(|(rule, caught_by)| match caught_by {
                CaughtBy::Case(case) => Some((rule.name(), *case)),
                // `make test-mutations` runs loom with these.
                CaughtBy::Loom(_) => None,
            }),
    );
}

#[test]
#[ignore = "`make test-mutations` runs it in a copy of the sources that has the patches"]
fn every_patch_turns_its_test_red() {
    let patches = patches();
    assert_each_turns_red(patches.iter().filter_map(|(name, red)| {
        let case = red.strip_prefix("conformance ")?;
        Some((name.as_str(), case))
    }));
}
