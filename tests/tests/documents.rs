//! The documents say what is there: configuration keys, source files and tests that they name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of a document under a heading, up to the next of that level.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(&format!("\n{heading}\n")).expect("the heading is there");
    let rest = &document[start + heading.len() + 2..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// What stands in backticks, where it looks like a name.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let name = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !word.is_empty() && word.chars().all(plain)
    };
    text.split('`').skip(1).step_by(2).filter(name)
}

fn rust_files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.to_string_lossy().into_owned());
        }
    }
}

fn files_under(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        rust_files(&root().join(folder), &mut found);
    }
    found
}

#[test]
fn every_configuration_key_stands_in_the_readme_with_its_default() {
    let readme = read("README.md");
    let table = section(&readme, "## Configuration");
    let mut group = String::new();
    let mut missing = Vec::new();
    for line in read("runtime-tokio/src/daemon/config/defaults.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            group = name.trim_end_matches(']').to_owned();
        } else if let Some((key, rest)) = line.split_once(" = ") {
            let value = rest.split(" #").next().unwrap_or(rest).trim();
            let row = format!("| `{group}.{key}` | `{value}` |");
            if !table.contains(&row) {
                missing.push(row);
            }
        }
    }
    assert!(missing.is_empty(), "missing or with another default:\n{}", missing.join("\n"));
}

#[test]
fn every_test_that_keeps_an_invariant_exists() {
    let architecture = read("ARCHITECTURE.md");
    let table = section(&architecture, "## Invariants");
    let files =
        files_under(&["core", "clocks", "store-sqlite", "runtime-tokio", "runtime-smol", "tests"]);
    let sources: String =
        files.iter().map(|path| fs::read_to_string(path).expect("a source is UTF-8")).collect();
    let mut known = 0;
    for name in names(table).filter(|name| name.matches('_').count() >= 2) {
        assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        known += 1;
    }
    assert!(known > 20, "the table names only {known} tests");
}

#[test]
fn the_code_map_knows_every_module_of_core_store_and_shells() {
    let architecture = read("ARCHITECTURE.md");
    let named: BTreeSet<&str> = names(section(&architecture, "## Code map")).collect();
    for path in files_under(&[
        "core/src",
        "clocks/src",
        "store-sqlite/src",
        "runtime-tokio/src",
        "runtime-smol/src",
    ]) {
        let path = Path::new(&path);
        let module = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let daemon = path.components().any(|part| part.as_os_str() == "daemon");
        if daemon || ["lib", "mod", "tests"].contains(&module) {
            continue;
        }
        assert!(named.contains(module), "the code map does not know {}", path.display());
    }
}
