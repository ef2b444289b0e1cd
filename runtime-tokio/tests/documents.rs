//! The command reference is what the binary prints.

use std::fs;
use std::path::{Path, PathBuf};

use slipstream_tests::harness::Command;

/// The binary that Cargo built for these tests.
const SLIPSTREAM: &str = env!("CARGO_BIN_EXE_slipstream");

/// Set to 1, the chapter is written anew.
const WRITE: &str = "SLIPSTREAM_TESTS_WRITE";

/// What stands before a command line in the chapter.
const PROMPT: &str = "```text\n$ slipstream ";

fn chapter() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/commands.md")
}

/// What the binary prints, without spaces at the ends of lines.
fn help(args: &[&str]) -> String {
    let printed = Command::new(SLIPSTREAM, args).run().ok();
    printed.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The names of the commands that a help text lists.
fn commands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.split("\nCommands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    let names = list.unwrap_or_default().lines();
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
}

/// Every command line whose help is shown: the binary, its commands, and theirs.
fn lines() -> Vec<String> {
    let mut lines = vec!["--help".to_owned()];
    for command in commands(&help(&["--help"])) {
        lines.push(format!("{command} --help"));
        let below = help(&[command, "--help"]);
        lines.extend(commands(&below).map(|name| format!("{command} {name} --help")));
    }
    lines
}

// keeps: help-examples
#[test]
fn the_command_reference_is_what_help_prints() {
    let had = fs::read_to_string(chapter()).expect("the chapter is there");
    let mut now = String::new();
    let mut shown = Vec::new();
    let mut parts = had.split(PROMPT);
    now.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (line, rest) = part.split_once('\n').expect("a command line ends");
        let (_, after) = rest.split_once("```\n").expect("a block ends");
        let args: Vec<&str> = line.split(' ').collect();
        now.extend([PROMPT, line, "\n", &help(&args), "```\n", after]);
        shown.push(line.to_owned());
    }
    if std::env::var(WRITE).is_ok_and(|it| it == "1") {
        fs::write(chapter(), &now).expect("the chapter can be written");
    } else {
        assert!(had == now, "docs/src/commands.md is not what --help prints: set {WRITE}=1");
    }
    assert_eq!(shown, lines(), "docs/src/commands.md has a block for each command");
}
