//! The extension `wal-queue` declares SQLite's C interface by hand. Here each place, size and
//! constant is compared with SQLite's own headers.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::process::Command;

use wal_queue::{CONSTANTS, LAYOUT, SIZES, SLOTS};

/// A program that prints each number as SQLite's headers have it, one a line.
fn program() -> String {
    let mut lines = String::new();
    let mut print = |expression: String| {
        writeln!(lines, "  printf(\"%lld\\n\", (long long)({expression}));").unwrap();
    };
    for (name, _) in SLOTS {
        let member = match *name {
            "sqlite3_threadsafe" => "xthreadsafe",
            name => name.strip_prefix("sqlite3_").unwrap(),
        };
        print(format!(
            "offsetof(sqlite3_api_routines, {member}) / sizeof(void (*)(void))"
        ));
    }
    for (structure, member, _) in LAYOUT {
        print(format!("offsetof({structure}, {member})"));
    }
    for (structure, _) in SIZES {
        print(format!("sizeof({structure})"));
    }
    for (name, _) in CONSTANTS {
        print((*name).to_owned());
    }
    format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <sqlite3ext.h>\n\
         int main(void) {{\n{lines}  return 0;\n}}\n"
    )
}

#[test]
fn extension_declares_the_interface_as_sqlite_does() {
    let folder = tempfile::tempdir().unwrap();
    let (source, binary) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, program()).unwrap();
    let compiled = Command::new("cc")
        .args(["-I", env!("SQLITE_INCLUDE")])
        .args([source.as_os_str(), "-o".as_ref(), binary.as_os_str()])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{errors}");
    let printed = Command::new(&binary).output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    let number = |value: &usize| i64::try_from(*value).unwrap();
    let slots = SLOTS
        .iter()
        .map(|(name, at)| ((*name).to_owned(), number(at)));
    let places = LAYOUT
        .iter()
        .map(|(structure, member, at)| (format!("{structure}.{member}"), number(at)));
    let sizes = SIZES
        .iter()
        .map(|(name, size)| ((*name).to_owned(), number(size)));
    let constants = CONSTANTS
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    let declared: Vec<_> = slots.chain(places).chain(sizes).chain(constants).collect();
    let in_header = printed.lines().map(|line| line.parse::<i64>().unwrap());
    let compared = declared.iter().zip(in_header);
    let wrong: Vec<_> = compared
        .filter(|((_, here), there)| here != there)
        .collect();
    assert!(
        wrong.is_empty(),
        "declared here, and in the header: {wrong:?}"
    );
    assert_eq!(printed.lines().count(), declared.len());
    assert!(declared.len() > 90);
}
