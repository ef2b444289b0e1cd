//! The documents agree with the code: keys, metrics, codes, paths, links, tests and log lines.
//!
//! What the binary prints for `--help` is compared in `runtime-tokio/tests/documents.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use slipstream_core::io::CloseCode;
use slipstream_core::refusal::Code;
use slipstream_tests::simulator::Fault;

/// Most bytes of the first page.
const MAX_README_BYTES: usize = 6 << 10;
/// Most bytes of the map.
const MAX_ARCHITECTURE_BYTES: usize = 14 << 10;
/// Documents outside of the book.
const DOCUMENTS: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "tests/README.md", "tests/INVARIANTS.md"];
/// Chapters of the book.
const BOOK: &str = "docs/src";
/// Pages of ideas, in the documentation of the core.
const IDEAS: &str = "core/src/docs";
/// Folders with sources and tests.
const SOURCES: [&str; 6] =
    ["core", "store-sqlite", "shell", "runtime-tokio", "runtime-smol", "tests"];
/// Folders that are not looked into.
const SKIPPED: [&str; 4] = [".git", "target", "fuzz/target", "fuzz/corpus"];
/// How files end that a document may name.
const ENDINGS: [&str; 8] = [".rs", ".md", ".toml", ".txt", ".mjs", ".html", ".ndjson", ".sql"];
/// Files that users make, and that tools make.
const NOT_OURS: [&str; 6] =
    ["slipstream.toml", "aws.toml", "azure.toml", "gcp.toml", "data/", "target/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of the repository, by its path from the root, but for what is built or fuzzed.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("the folder can be read") {
            let entry = entry.expect("an entry can be read");
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().into_owned();
            let is_folder = entry.file_type().expect("an entry has a type").is_dir();
            match is_folder {
                true if SKIPPED.contains(&name.as_str()) => {}
                true => folders.push(path),
                false => found.push(name),
            }
        }
    }
    found.sort();
    found
}

/// Every document with its path: first pages, chapters, decisions and ideas.
fn documents() -> BTreeMap<String, String> {
    let is_document = |path: &String| {
        let is_page = path.starts_with(BOOK) || path.starts_with(IDEAS);
        DOCUMENTS.contains(&path.as_str()) || (is_page && path.ends_with(".md"))
    };
    files().into_iter().filter(is_document).map(|path| (path.clone(), read(&path))).collect()
}

/// The sources of all crates with their paths.
fn sources() -> Vec<(String, String)> {
    let is_source = |path: &String| {
        path.ends_with(".rs") && SOURCES.iter().any(|folder| path.starts_with(folder))
    };
    files().into_iter().filter(is_source).map(|path| (path.clone(), read(&path))).collect()
}

/// The lines of a document that are not code.
fn prose(document: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    document.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The part of a document under a heading, up to the next of that level.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let start = document.find(&format!("\n{heading}\n")).expect("the heading is there");
    let rest = &document[start + heading.len() + 2..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of the tables in a document, as cells.
fn rows(document: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| ---");
    prose(document).filter(is_row).map(|line| {
        let line = line.trim().trim_start_matches('|').trim_end_matches('|');
        line.split(" | ").map(str::trim).collect()
    })
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn the_first_pages_stay_short() {
    for (path, most) in
        [("README.md", MAX_README_BYTES), ("ARCHITECTURE.md", MAX_ARCHITECTURE_BYTES)]
    {
        let bytes = read(path).len();
        assert!(bytes <= most, "{path} has {bytes} bytes of {most}: move details to {BOOK}");
    }
}

// keeps: defaults-agree
#[test]
fn every_configuration_key_has_a_row_with_its_default() {
    let chapter = read("docs/src/configuration.md");
    let mut group = String::new();
    let mut missing = Vec::new();
    for line in read("runtime-tokio/src/daemon/config/defaults.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            group = name.trim_end_matches(']').to_owned();
        } else if let Some((key, rest)) = line.split_once(" = ") {
            let value = rest.split(" #").next().unwrap_or(rest).trim();
            let row = format!("| `{group}.{key}` | `{value}` |");
            if !section(&chapter, &format!("## {group}")).contains(&row) {
                missing.push(row);
            }
        }
    }
    assert_none("missing in docs/src/configuration.md, or with another default", &missing);
}

// keeps: metrics
#[test]
fn every_metric_stands_in_the_runbook() {
    let runbook = read("docs/src/operations.md");
    let code = read("runtime-tokio/src/daemon/metrics.rs");
    let product = code.split("#[cfg(test)]").next().unwrap_or_default();
    let strings = product.split('"').skip(1).step_by(2);
    let is_name = |name: &&str| name.strip_prefix("slipstream_").is_some_and(|it| !it.is_empty());
    let metrics: BTreeSet<&str> = strings.filter(is_name).collect();
    assert!(metrics.len() > 30, "only {} metrics were found", metrics.len());
    let mut rows: Vec<&str> = rows(&runbook).map(|cells| cells[0]).collect();
    rows.retain(|cell| cell.starts_with("`slipstream_"));
    let named: BTreeSet<&str> =
        rows.iter().map(|cell| cell.trim_matches('`').split('{').next().unwrap_or(cell)).collect();
    assert_eq!(named, metrics, "docs/src/operations.md has a row for each metric");
}

/// Whether a source is of the binary, outside of the core.
fn is_of_the_program(path: &str) -> bool {
    ["runtime-tokio/src/", "shell/src/"].iter().any(|folder| path.starts_with(folder))
}

#[test]
fn every_log_line_in_the_runbook_is_one_of_the_program() {
    let runbook = read("docs/src/operations.md");
    let logs =
        |(path, _): &(String, String)| path == "core/src/admin/event.rs" || is_of_the_program(path);
    let code: String = sources().into_iter().filter(logs).map(|(_, text)| text).collect();
    let table = section(&runbook, "## Log lines that want somebody");
    let lines: Vec<&str> = rows(table).flat_map(|cells| quoted(cells[1])).collect();
    assert!(lines.len() > 20, "only {} log lines were found", lines.len());
    let unknown: Vec<String> =
        lines.into_iter().filter(|line| !code.contains(line)).map(str::to_owned).collect();
    assert_none("no such log line", &unknown);
}

/// The texts that a source logs as warnings and errors of its own.
fn warnings(source: &str) -> impl Iterator<Item = String> {
    let calls = ["tracing::warn!(", "tracing::error!("];
    let after = calls.into_iter().flat_map(move |call| source.split(call).skip(1));
    let texts = after.filter_map(|rest| {
        let call = rest.split(");").next().unwrap_or(rest);
        let call = call.split("),\n").next().unwrap_or(call);
        let texts = call.split('"').skip(1).step_by(2);
        texts.filter(|text| *text != "slipstream" && !text.starts_with('{')).last()
    });
    texts.map(|text| text.split("\\\n").map(str::trim_start).collect())
}

/// The texts of the events of a node that are warnings or errors.
fn events(source: &str) -> Vec<String> {
    let (levels, texts) = source.split_once("impl fmt::Display").expect("events have texts");
    let urgent = levels.rsplit_once("=> Level::Info,").expect("levels stand in order").1;
    let names = urgent.split("Self::").skip(1).filter_map(|rest| {
        rest.split(|c: char| !c.is_alphanumeric()).next().filter(|name| !name.is_empty())
    });
    let text = |name: &str| {
        let arm = texts.split_once(&format!("Self::{name}")).expect("each event has a text").1;
        let arm = arm.split("\n            Self::").next().unwrap_or(arm);
        arm.split('"').skip(1).step_by(2).collect::<String>()
    };
    names.map(text).collect()
}

#[test]
fn every_warning_stands_in_the_runbook() {
    let runbook = read("docs/src/operations.md");
    let table = section(&runbook, "## Log lines that want somebody");
    let lines: Vec<&str> = rows(table).flat_map(|cells| quoted(cells[1])).collect();
    let program = |(path, _): &&(String, String)| is_of_the_program(path);
    let mut said: Vec<String> =
        sources().iter().filter(program).flat_map(|(_, text)| warnings(text)).collect();
    said.extend(events(&read("core/src/admin/event.rs")));
    assert!(said.len() > 20, "only {} warnings were found", said.len());
    let is_silent = |text: &String| !lines.iter().any(|line| text.contains(line));
    let silent: Vec<String> = said.into_iter().filter(is_silent).collect();
    assert_none("docs/src/operations.md does not say what to do about", &silent);
}

#[test]
fn every_code_stands_in_the_protocol() {
    let chapter = read("docs/src/protocol.md");
    let errors: BTreeSet<&str> =
        rows(section(&chapter, "## Error codes")).flat_map(|cells| quoted(cells[0])).collect();
    assert_eq!(errors, Code::ALL.map(Code::as_str).into_iter().collect());
    let codes: BTreeMap<u16, bool> = rows(section(&chapter, "## Close codes"))
        .flat_map(|cells| {
            let come_back = cells[2] == "yes";
            let numbers = cells[0].split(' ').filter_map(|number| number.parse().ok());
            numbers.map(move |number| (number, come_back)).collect::<Vec<_>>()
        })
        .collect();
    assert!(codes.len() > 8, "only {} close codes were found", codes.len());
    for (number, come_back) in codes {
        assert_eq!(CloseCode::may_come_back(number), come_back, "after {number}");
    }
}

#[test]
fn every_fault_of_the_simulator_is_listed() {
    let chapter = read("docs/src/faults.md");
    let listed: BTreeSet<&str> = section(&chapter, "## What a seed draws")
        .lines()
        .filter_map(|line| line.strip_prefix("- "))
        .collect();
    assert_eq!(listed, Fault::ALL.iter().map(|fault| fault.text()).collect());
}

/// The names of the entries of a folder without their endings, tests left out.
fn modules(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder has sources");
    let stem = |path: PathBuf| path.file_stem().map(|it| it.to_string_lossy().into_owned());
    let names = entries.filter_map(|entry| stem(entry.expect("an entry can be read").path()));
    names.filter(|name| !["lib", "docs", "mod", "tests"].contains(&name.as_str())).collect()
}

#[test]
fn the_layers_name_every_module_of_the_core() {
    let architecture = read("ARCHITECTURE.md");
    let core = root().join("core/src");
    let rows = section(&architecture, "## Layers").lines().filter(|line| line.starts_with("| `"));
    let mut layers = BTreeSet::new();
    for row in rows {
        let mut names = quoted(row).map(str::to_owned);
        let layer = names.next().expect("a row begins with its layer");
        // The node is left out: `handlers` lists what lies in it.
        if core.join(&layer).is_dir() && layer != "node" {
            assert_eq!(names.collect::<BTreeSet<_>>(), modules(&core.join(&layer)), "of {layer}");
        }
        layers.insert(layer);
    }
    assert_eq!(layers, modules(&core), "the layers of ARCHITECTURE.md");
}

// keeps: documents
#[test]
fn the_readme_embeds_as_the_compiled_example_does() {
    let readme = read("README.md");
    let compiled = read("runtime-tokio/src/lib.rs");
    let block = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next());
    let lines = block.expect("README has an example in Rust").lines();
    let differs =
        |line: &&str| !compiled.lines().any(|had| had == format!("//! {line}").trim_end());
    let unknown: Vec<String> = lines.filter(differs).map(str::to_owned).collect();
    assert_none("not in the example of runtime-tokio/src/lib.rs, which is compiled", &unknown);
}

/// Whether something in backticks is to be a file or folder of this repository.
fn is_path(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let names_file = ENDINGS.iter().any(|ending| word.ends_with(ending) && word != *ending);
    let names_folder = word.contains('/') && !word.starts_with('/');
    word.chars().all(plain)
        && word.contains(|c: char| c.is_ascii_lowercase())
        && (names_file || names_folder)
        && !NOT_OURS.iter().any(|other| word == *other || word.starts_with("target/"))
}

// keeps: documents
#[test]
fn every_path_in_the_documents_exists() {
    let files = files();
    let mut missing = Vec::new();
    for (document, text) in documents() {
        let beside = Path::new(&document).parent().expect("a document lies in a folder");
        for path in prose(&text).flat_map(quoted).filter(|word| is_path(word)) {
            let exists = root().join(path).exists()
                || root().join(beside).join(path).exists()
                || files.iter().any(|file| match path.strip_suffix('/') {
                    Some(folder) => file.contains(&format!("/{folder}/")),
                    None => file.ends_with(&format!("/{path}")),
                });
            if !exists {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert_none("documents name what does not exist", &missing);
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || "_- ".contains(*c);
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    heading.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

// keeps: documents
#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for (document, text) in &documents {
        let beside =
            root().join(document).parent().expect("a document lies in a folder").to_owned();
        let targets = prose(text).flat_map(|line| line.split("](").skip(1));
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            // Rustdoc checks links between its items.
            if target.contains("://") || target.contains("::") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root().join(document) } else { beside.join(path) };
            let Ok(file) = file.canonicalize() else {
                broken.push(format!("{document}: {target}"));
                continue;
            };
            let leaves_the_book =
                document.starts_with(BOOK) && !file.starts_with(root().join(BOOK));
            let has_heading = || {
                let text = fs::read_to_string(&file).unwrap_or_default();
                let mut headings = prose(&text).filter(|line| line.starts_with('#'));
                headings.any(|line| anchor(line) == heading)
            };
            if leaves_the_book || (!heading.is_empty() && !has_heading()) {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert_none("links that lead nowhere, or out of the book", &broken);
}

// keeps: documents
#[test]
fn every_chapter_stands_in_the_summary() {
    let summary = read("docs/src/SUMMARY.md");
    let index = read("docs/src/decisions/README.md");
    let mut missing = Vec::new();
    for path in documents().keys().filter_map(|path| path.strip_prefix("docs/src/")) {
        let decision = path.strip_prefix("decisions/").filter(|name| *name != "README.md");
        let is_named = match decision {
            Some(name) => {
                index.contains(&format!("]({name})")) && summary.contains(&format!("]({path})"))
            }
            None => path == "SUMMARY.md" || summary.contains(&format!("]({path})")),
        };
        if !is_named {
            missing.push(path.to_owned());
        }
    }
    assert_none("neither summary nor index names", &missing);
}

/// Which tests keep which rows, by the table.
fn rows_by_the_table(table: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found = BTreeMap::new();
    for cells in rows(table).filter(|cells| cells[0].starts_with('`')) {
        let [row, _, kept_by] = cells[..] else { panic!("a row has three cells: {cells:?}") };
        let known = found.insert(row.trim_matches('`'), quoted(kept_by).collect());
        assert!(known.is_none(), "{row} is there twice");
    }
    found
}

/// Whether a name in the table is that of a test.
fn is_test(name: &&str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.matches('_').count() >= 2 && name.chars().all(plain)
}

// keeps: documents
#[test]
fn every_row_is_kept_by_something_that_exists() {
    let table = read("tests/INVARIANTS.md");
    let sources: String = sources().into_iter().map(|(_, text)| text).collect();
    let rows = rows_by_the_table(&table);
    assert!(rows.len() > 100, "the table has only {} rows", rows.len());
    let mut offences = Vec::new();
    for (row, names) in rows {
        for name in names.iter().copied().filter(is_test) {
            let is_there = sources.contains(&format!("fn {name}("));
            if !is_there {
                offences.push(format!("{row}: there is no test {name}"));
            }
        }
        let others = [".ci/", "tests/", "#![no_std]", "unsafe_code = \"forbid\"", "simulate"];
        let keeps = |name: &&str| is_test(name) || others.iter().any(|it| name.starts_with(it));
        if !names.iter().any(keeps) {
            offences.push(format!("{row}: nothing keeps it"));
        }
    }
    assert_none("rows of tests/INVARIANTS.md that are not kept", &offences);
}

/// Which tests keep which rows, by the `// keeps: ROW, ROW` above them.
fn pairs_by_the_comments(source: &str) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut rows = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("// keeps: ") {
            rows.extend(more.split(", "));
        } else if let Some((_, rest)) = line.split_once("fn ")
            && !rows.is_empty()
        {
            let name = rest.split('(').next().unwrap_or(rest);
            pairs.extend(rows.drain(..).map(|row| (row, name)));
        }
    }
    assert!(rows.is_empty(), "no test follows `// keeps: {}`", rows.join(", "));
    pairs
}

#[test]
fn the_table_and_the_tests_name_each_other() {
    let table = read("tests/INVARIANTS.md");
    let sources = sources();
    let rows = rows_by_the_table(&table);
    let table: BTreeSet<(&str, &str)> = rows
        .iter()
        .flat_map(|(row, names)| names.iter().copied().filter(is_test).map(|name| (*row, name)))
        .collect();
    let comments: BTreeSet<(&str, &str)> =
        sources.iter().flat_map(|(_, text)| pairs_by_the_comments(text)).collect();
    let say = |(row, name): &(&str, &str)| format!("{row}: {name}");
    let silent: Vec<String> = table.difference(&comments).map(say).collect();
    assert_none("a test that keeps a row says so: `// keeps: ROW`", &silent);
    let unknown: Vec<String> = comments.difference(&table).map(say).collect();
    assert_none("tests/INVARIANTS.md names every test that keeps a row", &unknown);
}
