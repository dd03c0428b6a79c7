//! Man pages, completions and the schema.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

#[test]
fn man_page_and_completion_of_each_command_are_generated() {
    let folder = tempfile::tempdir().unwrap();
    let man = common::command(["generate", "man"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(man.status.success(), "{man:?}");
    for name in ["walctl.1", "walctl-info.1", "walctl-keep.1"] {
        let page = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = common::command(["generate", "completions", shell])
            .output()
            .unwrap();
        assert!(common::text(&script).contains("checkpoint"), "{shell}");
    }
}
