//! Each row runs on each of its systems, and the report is what it is said to
//! be.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_row_runs_and_the_report_has_the_promised_fields() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = scratch.path().join("report.json");
    let status = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["run", "--tiny", "--scratch"])
        .arg(scratch.path())
        .arg("--report")
        .arg(&report)
        .status()
        .unwrap();
    assert!(status.success());
    let lines: Vec<serde_json::Map<String, Value>> =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let fields = [
        "backend",
        "better",
        "max",
        "median",
        "min",
        "p99",
        "row",
        "slowest_to_fastest",
        "system",
        "unit",
        "worst",
    ];
    let mut systems = BTreeSet::new();
    for line in &lines {
        assert!(line.keys().map(String::as_str).eq(fields), "{line:?}");
        assert!(line["median"].as_f64().unwrap() > 0.0, "{line:?}");
        assert!(line["better"] == "less" || line["better"] == "more");
        systems.insert(line["system"].as_str().unwrap().to_owned());
    }
    let expected = ["limit", "lmdb", "redb", "sqlite", "sqlite-mmap", "wal"];
    assert!(
        systems.iter().map(String::as_str).eq(expected),
        "{systems:?}"
    );
    let rows: BTreeSet<_> = lines.iter().map(|line| line["row"].as_str()).collect();
    assert!(rows.len() > 20, "{rows:?}");
}

#[test]
fn table_of_delayed_release_has_a_line_for_each_pace_and_system() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["delayed-release", "--rounds", "2", "--scratch"])
        .arg(scratch.path())
        .output()
        .unwrap();
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    // Two lines of headings; seven paces of three systems each.
    assert_eq!(table.lines().count(), 2 + 7 * 3, "{table}");
    let columns = |line: &str| line.matches('|').count();
    assert!(table.lines().all(|line| columns(line) == 7), "{table}");
}

#[test]
fn queue_table_has_stock_and_queue_for_each_kind_of_writer() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = scratch.path().join("report.json");
    let document = scratch.path().join("document.md");
    std::fs::write(
        &document,
        "# Title\n<!-- queue -->\nold\n<!-- end of queue -->\nrest\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["queue", "--tiny", "--scratch"])
        .arg(scratch.path())
        .arg("--report")
        .arg(&report)
        .arg("--document")
        .arg(&document)
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}{errors}");
    let lines: Vec<serde_json::Map<String, Value>> =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let document = std::fs::read_to_string(document).unwrap();
    assert!(
        document.starts_with("# Title\n<!-- queue -->\n| writers |"),
        "{document}"
    );
    assert!(
        document.ends_with("|\n<!-- end of queue -->\nrest\n"),
        "{document}"
    );
    assert_eq!(
        document.matches("\n| ").count(),
        1 + lines.len(),
        "{document}"
    );
    let systems_of = |writers: &str| -> BTreeSet<&str> {
        let of_row = lines.iter().filter(|line| line["writers"] == writers);
        of_row.filter_map(|line| line["system"].as_str()).collect()
    };
    for writers in ["rust, alone", "rust, wal"] {
        assert!(
            systems_of(writers).iter().eq(&["queue", "stock"]),
            "{table}"
        );
    }
    assert!(
        systems_of("rust").is_superset(&BTreeSet::from(["queue", "stock"])),
        "{table}"
    );
    assert!(
        systems_of("rust, half of them").iter().eq(&["half-queue"]),
        "{table}"
    );
    for line in &lines {
        // The writers of one half may not have acquired `WRITE` in so short a time.
        let commits = line["median"].as_f64().unwrap();
        assert!(commits > 0.0 || line["system"] == "half-queue", "{line:?}");
        assert_eq!(line["unit"], "commits/s");
        assert!(
            line["locked"].is_u64() && line["longest_ms"].is_f64(),
            "{line:?}"
        );
        let fairness = line["slowest_to_fastest"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&fairness), "{line:?}");
    }
}
