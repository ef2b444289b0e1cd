//! The demo does what it says, and leaves nothing behind.

use std::path::Path;

use slipstream_tests::harness::{Command, Finished, LONG};

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

/// Runs a small demo with its files under `folder`.
fn demo(folder: &Path, arguments: &[&str]) -> Finished {
    let arguments: Vec<_> =
        ["demo", "--messages", "300"].iter().chain(arguments).copied().collect();
    let folder = folder.to_str().expect("the folder has a name in UTF-8");
    Command::new(SLIPSTREAM, &arguments).env("TMPDIR", folder).spawn().wait(LONG)
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().expect("the folder is there").next().is_none()
}

#[test]
fn a_demo_holds_and_says_so_in_a_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = demo(folder.path(), &[]);
    for phase in ["start", "publish", "cut", "kill", "restart", "heal", "wait", "join", "check"] {
        assert!(demo.stderr.contains(&format!("s  {phase} ")), "{phase}: {demo:?}");
    }
    let page = demo.ok();
    for row in ["PUBLISHED AT", "aws", "azure", "gcp", "receipts", "copies against least"] {
        assert!(page.lines().any(|line| line.trim_start().starts_with(row)), "{row}: {page}");
    }
    assert!(page.contains("900, honoured 900"), "{page}");
    assert!(is_empty(folder.path()), "files were left behind");
}

#[test]
fn a_demo_says_the_same_as_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = demo(folder.path(), &["--json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&json).expect("nothing but JSON");
    assert_eq!(report["ok"], true, "{json}");
    assert_eq!(report["receipts_honoured"], 900, "{json}");
    let late = &report["late_site"];
    assert!(late["keys"].as_u64() > Some(100), "{late}");
    assert_eq!(late["current"], late["keys"]);
    assert!(
        report["copies_least"].as_u64() > Some(900) && report["copies_total"].is_u64(),
        "{json}"
    );
    let cells = report["deliveries"].as_array().expect("a list");
    assert_eq!(cells.len(), 9);
    for cell in cells {
        assert!(cell["arrived"].as_u64() > Some(100), "{cell}");
        assert_eq!(cell["arrived"], cell["expected"]);
    }
}
