//! Man pages, completions and the schema.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

/// The schema as it is documented.
const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/walctl.schema.json");

#[test]
fn documented_schema_is_that_of_the_reports() {
    let printed = common::command(["generate", "schema"]).output().unwrap();
    let printed = common::text(&printed);
    if std::env::var_os("WAL_UPDATE_SCHEMA").is_some() {
        std::fs::write(DOCUMENTED, &printed).unwrap();
    }
    let documented = std::fs::read_to_string(DOCUMENTED).unwrap_or_default();
    assert!(
        documented == printed,
        "docs/walctl.schema.json is out of date; run the test with WAL_UPDATE_SCHEMA=1",
    );
}

#[test]
fn report_that_is_not_of_the_schema_is_refused() {
    let refused = |report: serde_json::Value| {
        let checked = std::panic::catch_unwind(|| common::check(&report));
        checked.is_err()
    };
    assert!(refused(
        serde_json::json!({"schema": "walctl/1", "kind": "info"})
    ));
    assert!(refused(
        serde_json::json!({"schema": "walctl/1", "kind": "no such report"})
    ));
}

#[test]
fn help_of_each_command_has_examples_and_fits_a_terminal() {
    let help = |arguments: &[&str]| {
        let output = common::command(arguments.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        common::text(&output)
    };
    let all = help(&["--help"]);
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        let help = help(&[name, "--help"]);
        assert!(help.contains("Examples:\n  walctl "), "{name}: {help}");
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{name}");
    }
}

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
