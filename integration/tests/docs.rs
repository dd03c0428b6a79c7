//! What the documents promise is there: every test that they name exists, and
//! every mutation has its row.
#![allow(clippy::unwrap_used)] // A file of the repository that cannot be read fails the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wal_core::testing::Mutation;

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
        .filter(|name| !code.contains(&format!("fn {name}")))
        .collect();
    assert!(missing.is_empty(), "named and not there: {missing:#?}");
}

#[test]
fn every_mutation_has_its_row() {
    let document = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    for mutation in Mutation::ALL {
        let name = format!("`{}`", mutation.name());
        assert!(
            document.contains(&name),
            "docs/testing.md does not tell of {name}"
        );
    }
}
