//! What the documents promise is there: every test that they name exists, and
//! every rule and every patch has its row.
#![allow(clippy::unwrap_used)] // A file of the repository that cannot be read fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wal_core::testing::Rule;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files_below(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            files_below(&path, ending, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
}

fn text_of_all(ending: &str) -> String {
    let mut files = Vec::new();
    files_below(&root(), ending, &mut files);
    files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

/// The words between backticks that look like the name of a test: at least
/// four words with underscores between them.
fn named_tests(text: &str) -> BTreeSet<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(|code| code.rsplit("::").next().unwrap_or(code))
        .filter(|name| name.split('_').count() > 3)
        .filter(|name| {
            name.chars()
                .all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
        })
        .collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let (documents, code) = (text_of_all("md"), text_of_all("rs"));
    let named = named_tests(&documents);
    assert!(named.len() > 20, "the documents name their tests");
    let missing: Vec<_> = named
        .into_iter()
        .filter(|name| !NAMES_OF_TURSO.contains(name))
        // Metrics, which `wal-cli/tests/metrics.rs` compares with what is exported.
        .filter(|name| !name.starts_with("walctl_"))
        .filter(|name| !code.contains(&format!("fn {name}")))
        .collect();
    assert!(missing.is_empty(), "named and not there: {missing:#?}");
}

/// The suites that `make test` runs, by the folders of their tests.
const SUITES: [(&str, &[&str]); 4] = [
    (
        "test-unit",
        &[
            "wal-conformance/",
            "wal-core/src/",
            "wal-shm/src/",
            "wal-inproc/tests/",
            "wal/tests/",
        ],
    ),
    (
        "loom",
        &[
            "wal-inproc/tests/loom_",
            "wal-core/src/index/",
            "wal-shm/src/lock_table/",
        ],
    ),
    (
        "test-processes",
        &[
            "integration/tests/",
            "integration/src/",
            "demo/tests/",
            "demo/src/",
            "fixtures/tests/",
        ],
    ),
    ("test-sql", &["wal-libsql/tests/"]),
];

/// Where the test or case `name` is, and what stands before it: attributes and the
/// end of what is above.
fn definitions(files: &[(String, String)], name: &str) -> Vec<(String, String)> {
    let head = format!("fn {name}");
    let ends = |text: &str| text.starts_with(['(', '<']);
    let found = files.iter().flat_map(|(path, text)| {
        let at = text.match_indices(&head);
        let at = at.filter(|(at, _)| ends(&text[at + head.len()..]));
        at.map(|(at, _)| {
            let before = text[..at].rsplit("}\n").next().unwrap_or_default();
            (path.clone(), before.to_owned())
        })
    });
    found.collect()
}

#[test]
fn every_guarantee_is_shown_by_make_test() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let rule = makefile
        .lines()
        .find(|line| line.starts_with("test: "))
        .unwrap();
    let mut paths = Vec::new();
    files_below(&root(), "rs", &mut paths);
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    let text = |path: &PathBuf| (relative(path), fs::read_to_string(path).unwrap());
    let files: Vec<_> = paths.iter().map(text).collect();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, table) = readme.split_once("## What is guaranteed").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let named = named_tests(table);
    assert!(named.len() > 20, "the guarantees name their tests");
    for name in named {
        let found = definitions(&files, name);
        let runs = |(path, before): &(String, String)| {
            let suite = SUITES
                .iter()
                .find(|(_, folders)| folders.iter().any(|folder| path.starts_with(folder)));
            let is_run =
                suite.is_some_and(|(suite, _)| rule.split_whitespace().any(|word| word == *suite));
            let is_case = path.contains("wal-conformance/src/cases/");
            is_run && (is_case || before.contains("#[test]")) && !before.contains("#[ignore")
        };
        assert!(
            found.iter().any(runs),
            "{name} is not run by `make test`: {found:?}"
        );
    }
}

#[test]
fn every_rule_and_patch_has_its_row() {
    let document = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let rules = Rule::ALL.iter().map(|rule| rule.name().to_owned());
    let entries = fs::read_dir(root().join("mutations")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let patches = paths
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    for name in rules.chain(patches) {
        assert!(
            document.contains(&format!("`{name}`")),
            "docs/testing.md does not tell of `{name}`"
        );
    }
}

/// The operations of Turso that docs/turso.md compares with ours.
const NAMES_OF_TURSO: [&str; 16] = [
    "BackfillProof",
    "VacuumLockGuard",
    "WalAutoActions",
    "acquire_checkpoint_guard",
    "append_frames_vectored",
    "begin_vacuum_blocking_tx",
    "commit_prepared_frames",
    "finalize_committed_pages",
    "install_durable_backfill_proof",
    "prepare_frames",
    "prepare_wal_header",
    "publish_backfill",
    "try_begin_read_tx",
    "try_begin_vacuum_checkpoint_lock",
    "try_begin_write_tx",
    "vacuum_checkpoint_with_held_lock",
];

/// True if `text` defines a function or a type of that name.
fn defines(text: &str, name: &str) -> bool {
    let ends = |rest: &str| rest.starts_with(['(', '<', ' ']);
    ["fn ", "struct ", "enum "].iter().any(|keyword| {
        let head = format!("{keyword}{name}");
        let mut found = text.match_indices(&head);
        found.any(|(at, _)| ends(&text[at + head.len()..]))
    })
}

#[test]
fn name_of_turso_is_defined_where_its_row_says() {
    let document = fs::read_to_string(root().join("docs/turso.md")).unwrap();
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let mut named = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", name, _there, here, _differs, ""] = cells[..] else {
            panic!("not four cells: {row}");
        };
        let name = name.trim_matches('`');
        named.insert(name);
        if here == "none" {
            let is_ours = defines(&text_of_all("rs"), name);
            assert!(!is_ours, "{name} is ours, and means something else");
            continue;
        }
        let (ours, file) = here.split_once(" in ").unwrap();
        assert_eq!(ours.trim_matches('`'), name, "it has another name");
        let path = root()
            .join("wal-core/src/protocol")
            .join(file.trim_matches('`'));
        let text = fs::read_to_string(&path).unwrap();
        assert!(defines(&text, name), "{name} is not in {file}");
    }
    assert_eq!(named, BTreeSet::from(NAMES_OF_TURSO));
}
