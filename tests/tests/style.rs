//! The style of this repository, kept by a test (CONTRIBUTING.md, "Style").
//!
//! What the compiler, rustfmt and clippy cannot say is said here: how long files and lines may
//! be, what product code does without, how large a shell may grow, and what lies at the top.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file without its tests.
const MAX_FILE_LINES: usize = 500;
/// Characters of a line.
const MAX_COLUMNS: usize = 100;
/// Lines of a shell: all of its library, comments included, without its tests.
const MAX_SHELL_LINES: usize = 700;
/// Lines of code that both shells may have word for word.
const MAX_EQUAL_LINES: usize = 60;

/// Lines of a function.
const MAX_FUNCTION_LINES: usize = 70;
/// Fields of a type.
const MAX_FIELDS: usize = 14;

/// Longer functions: one arm of a `match` for each event.
const LONG_FUNCTIONS: [&str; 1] = ["core/src/admin/event.rs: fmt"];

/// Wider types. What operators are shown, a frame or a report as it is written, and counters, have
/// as many fields as there are things to say.
const WIDE_TYPES: [&str; 10] = [
    "core/src/admin/metrics.rs: NodeMetrics",
    "core/src/admin/mod.rs: Counters",
    "core/src/admin/mod.rs: SessionStatus",
    "core/src/admin/mod.rs: Status",
    "core/src/app/json.rs: Any",
    "core/src/host/client/application.rs: Application",
    "core/src/store/mod.rs: Batch",
    "runtime-tokio/src/daemon/admin/reply.rs: DeadLetterJson",
    "runtime-tokio/src/daemon/commands/dead_letters.rs: LetterRow",
    "runtime-tokio/src/tools/demo/report.rs: DemoReport",
];

/// Characters of the name of a test.
const MAX_TEST_NAME: usize = 59;
/// Parts of a node.
const MAX_PARTS: usize = 14;
/// Parts of a node that a handler may touch.
const MAX_LENT: usize = 8;

/// What product code does without, outside its tests.
const BANNED: [&str; 4] = [".unwrap()", "todo!", "unimplemented!", "dbg!"];

/// Folders of product code.
const PRODUCT: [&str; 5] =
    ["core/src", "store-sqlite/src", "shell/src", "runtime-tokio/src", "runtime-smol/src"];

/// Everything that may lie at the top.
const TOP_LEVEL: [&str; 19] = [
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "core",
    "docs",
    "fuzz",
    "runtime-smol",
    "runtime-tokio",
    "rustfmt.toml",
    "shell",
    "store-sqlite",
    "tests",
];

/// A source file, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Numbered lines without the tests at the end; none for a file that holds only tests.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let all: Vec<&str> = self.text.lines().collect();
        let opens_module = |rest: &[&str]| {
            let item = rest.iter().find(|line| !line.starts_with("#["));
            item.is_some_and(|item| item.contains("mod ") && item.ends_with('{'))
        };
        let tests = (0..all.len())
            .find(|index| all[*index] == "#[cfg(test)]" && opens_module(&all[*index..]));
        let end = if self.path.ends_with("/tests.rs") { 0 } else { tests.unwrap_or(all.len()) };
        all.into_iter().take(end).enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines that are neither blank nor comments, without the tests.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.product_lines().filter(|(_, line)| {
            let line = line.trim_start();
            !line.is_empty() && !line.starts_with("//")
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("the folder can be read");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("an entry can be read").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is UTF-8");
                let path = path.strip_prefix(root()).expect("it lies under the root");
                found.push(Source { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    assert!(!found.is_empty(), "there are no source files under {folder}");
    found
}

fn product() -> Vec<Source> {
    PRODUCT.iter().flat_map(|folder| sources(folder)).collect()
}

fn everything() -> Vec<Source> {
    let folders = ["core", "store-sqlite", "shell", "runtime-tokio", "runtime-smol", "tests"];
    folders.iter().flat_map(|folder| sources(folder)).collect()
}

fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

// keeps: house-style
#[test]
fn a_file_has_at_most_500_lines_without_its_tests() {
    let long = |source: &Source| {
        let lines = source.product_lines().count();
        (lines > MAX_FILE_LINES).then(|| format!("{}: {lines} lines", source.path))
    };
    let offences: Vec<_> = product().iter().filter_map(long).collect();
    assert_none("two things live in a longer file; give each its own", &offences);
}

#[test]
fn a_line_has_at_most_100_columns() {
    let mut offences = Vec::new();
    for source in everything() {
        for (index, line) in source.text.lines().enumerate() {
            if line.chars().count() > MAX_COLUMNS {
                offences.push(format!("{}:{}", source.path, index + 1));
            }
        }
    }
    assert_none("longer lines, comments included", &offences);
}

/// Items that begin with this word in product code, as `path: name`, with the number of lines up to
/// the brace that closes each, and these lines.
fn items(keyword: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for source in product() {
        let lines: Vec<&str> = source.product_lines().map(|(_, line)| line).collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let indent = &line[..line.len() - code.len()];
            let words: Vec<&str> = code.split([' ', '(', '<', ':']).collect();
            let is_item = !code.starts_with("//") && words.contains(&keyword);
            let name = words.iter().skip_while(|word| **word != keyword).nth(1);
            let (Some(name), true) = (name.filter(|name| !name.is_empty()), is_item) else {
                continue;
            };
            let close = format!("{indent}}}");
            let body = lines[index..].iter().take_while(|line| **line != close);
            let body: Vec<String> = body.map(|line| (*line).to_owned()).collect();
            // A declaration ends with a semicolon before anything is opened.
            let head = body.iter().find(|line| line.ends_with('{') || line.ends_with(';'));
            if head.is_some_and(|line| line.ends_with('{')) {
                found.push((format!("{}: {name}", source.path), body));
            }
        }
    }
    assert!(found.len() > 100, "no items are found");
    found
}

/// Fails for what is too large and not on the list, and for what is on the list and is not.
fn assert_only(rule: &str, large: &[String], known: &[&str]) {
    let is_known = |item: &&String| !known.iter().any(|known| known == item);
    let others: Vec<String> = large.iter().filter(is_known).cloned().collect();
    assert_none(rule, &others);
    let gone = known.iter().filter(|known| !large.iter().any(|item| item == *known));
    assert_none(
        "on the list, and within the bound",
        &gone.map(ToString::to_string).collect::<Vec<_>>(),
    );
}

// keeps: house-style
#[test]
fn a_function_has_at_most_70_lines() {
    let long = items("fn").into_iter().filter(|(_, body)| body.len() + 1 > MAX_FUNCTION_LINES);
    let long: Vec<String> = long.map(|(item, _)| item).collect();
    assert_only("two things are done in a longer function", &long, &LONG_FUNCTIONS);
}

// keeps: house-style
#[test]
fn a_type_has_at_most_14_fields() {
    let is_field = |line: &&String| {
        let code = line.trim_start();
        let name = code.rsplit_once("pub").map_or(code, |(_, rest)| rest);
        let name = name.rsplit_once(") ").map_or(name, |(_, rest)| rest).trim_start();
        let indent = line.len() - code.len();
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        indent == 4 && name.split_once(": ").is_some_and(|(name, _)| is_name(name))
    };
    let wide = items("struct")
        .into_iter()
        .filter(|(_, body)| body.iter().filter(is_field).count() > MAX_FIELDS);
    let wide: Vec<String> = wide.map(|(item, _)| item).collect();
    assert_only("two things live in a wider type", &wide, &WIDE_TYPES);
}

// keeps: house-style
#[test]
fn a_test_has_a_name_of_at_most_59_characters() {
    let (mut tests, mut offences) = (0, Vec::new());
    for source in everything() {
        let lines: Vec<&str> = source.text.lines().map(str::trim_start).collect();
        // Tests of a shell call them by the same name.
        let is_story = source.path.starts_with("tests/src/scenarios/");
        for (index, line) in lines.iter().enumerate() {
            let item = line.strip_prefix("pub ").unwrap_or(line);
            let item = item.strip_prefix("async ").unwrap_or(item);
            let Some((name, _)) = item.strip_prefix("fn ").and_then(|it| it.split_once('(')) else {
                continue;
            };
            let mut attributes = lines[..index].iter().rev().take_while(|it| it.starts_with("#["));
            let is_test = attributes.any(|it| it.ends_with("test]") || it.contains("::test("));
            let is_test = is_test || is_story && line.starts_with("pub ");
            tests += usize::from(is_test);
            if is_test && name.chars().count() > MAX_TEST_NAME {
                offences.push(format!("{}:{}: {name}", source.path, index + 1));
            }
        }
    }
    assert!(tests > 100, "only {tests} tests are found");
    assert_none("say what a test shows in fewer words", &offences);
}

// keeps: small-node
#[test]
fn a_node_is_small_and_its_handlers_borrow_few_parts() {
    let node = sources("core/src/node");
    let text = |path: &str| {
        let found = node.iter().find(|source| source.path == path);
        &found.unwrap_or_else(|| panic!("there is no {path}")).text
    };
    let (_, fields) = text("core/src/node/mod.rs").split_once("pub struct Node {").expect("Node");
    let parts = fields.lines().take_while(|line| *line != "}").filter(|line| line.contains(':'));
    assert!((1..=MAX_PARTS).contains(&parts.clone().count()), "{:?}", parts.collect::<Vec<_>>());
    // Lines such as `Room[config] { time, log, out }`.
    let handlers = text("core/src/node/handlers.rs").lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("    ")?.split_once('[')?;
        let (read, changed) = rest.strip_suffix(" }")?.split_once("] { ")?;
        Some((name, changed.split(", ").count() + usize::from(!read.is_empty())))
    });
    let handlers: Vec<_> = handlers.collect();
    assert!(!handlers.is_empty(), "no handler is found");
    let large = handlers.iter().filter(|(_, parts)| *parts > MAX_LENT);
    let large: Vec<_> = large.map(|(name, parts)| format!("{name}: {parts} parts")).collect();
    assert_none("a handler borrows at most 8 parts of a node", &large);
    let elsewhere = node.iter().filter(|source| source.path != "core/src/node/mod.rs");
    let elsewhere = elsewhere.filter(|source| source.text.contains("\nimpl Node {"));
    let elsewhere: Vec<_> = elsewhere.map(|source| source.path.clone()).collect();
    assert_none("`impl Node` stands in node/mod.rs alone", &elsewhere);
    let put = node.iter().map(|source| source.text.matches("links.by_id.insert(").count());
    assert_eq!(put.sum::<usize>(), 1, "a link is put into the table once, when it is up");
}

// keeps: house-style
#[test]
fn a_module_begins_with_what_it_owns() {
    let offences: Vec<_> = everything()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert_none("a module begins with `//!`", &offences);
}

// keeps: house-style
#[test]
fn product_code_neither_unwraps_nor_is_left_unfinished() {
    let mut offences = Vec::new();
    for source in product() {
        for (number, line) in source.code_lines() {
            for banned in BANNED.iter().filter(|banned| line.contains(**banned)) {
                offences.push(format!("{}:{number}: {banned}", source.path));
            }
        }
    }
    assert_none("`expect` states the invariant; unfinished code is not committed", &offences);
}

#[test]
fn no_test_is_ignored() {
    // Put together, so that this line is none.
    let ignored = concat!("#[", "ignore");
    let offences: Vec<_> = everything()
        .into_iter()
        .filter(|source| source.text.contains(ignored))
        .map(|source| source.path)
        .collect();
    assert_none("a test that is not run keeps nothing", &offences);
}

/// The files of a shell's library.
fn shell(folder: &str) -> Vec<Source> {
    let is_library = |file: &Source| {
        let path = file.path.trim_start_matches(folder);
        !["daemon/", "tools/", "bin/"].iter().any(|part| path.starts_with(part))
    };
    sources(folder).into_iter().filter(is_library).collect()
}

// keeps: house-style
#[test]
fn a_shell_stays_thin() {
    for folder in ["runtime-tokio/src/", "runtime-smol/src/"] {
        let lines: usize = shell(folder).iter().map(|file| file.product_lines().count()).sum();
        let advice = "what both shells would decide belongs in the core, or in `shell`";
        assert!(lines <= MAX_SHELL_LINES, "{folder} has {lines} lines: {advice}");
    }
}

// keeps: house-style
#[test]
fn both_shells_have_the_same_files() {
    let names = |folder: &str| -> Vec<String> {
        let name = |file: Source| file.path.trim_start_matches(folder).to_owned();
        shell(folder).into_iter().map(name).collect()
    };
    assert_eq!(names("runtime-tokio/src/"), names("runtime-smol/src/"));
}

/// What a file says: its code without imports, and without brackets that stand alone.
fn said_by(file: &Source) -> Vec<&str> {
    let mut is_import = false;
    let mut said = Vec::new();
    for line in file.code_lines().map(|(_, line)| line.trim()) {
        is_import |= line.starts_with("use ") || line.starts_with("pub use ");
        if !is_import && line.contains(char::is_alphanumeric) {
            said.push(line);
        }
        is_import &= !line.ends_with(';');
    }
    said
}

/// How many lines two texts have in common, in their order.
fn in_common(one: &[&str], other: &[&str]) -> usize {
    let mut longest = vec![0; other.len() + 1];
    for line in one {
        let mut before = 0;
        for (index, candidate) in other.iter().enumerate() {
            let above = longest[index + 1];
            longest[index + 1] =
                if line == candidate { before + 1 } else { above.max(longest[index]) };
            before = above;
        }
    }
    longest[other.len()]
}

// keeps: house-style
#[test]
fn shells_say_little_word_for_word_alike() {
    let pairs = shell("runtime-tokio/src/").into_iter().zip(shell("runtime-smol/src/"));
    let equal: usize = pairs.map(|(one, other)| in_common(&said_by(&one), &said_by(&other))).sum();
    let advice = "what is the same on every runtime belongs in `shell`, or in the core";
    assert!(equal <= MAX_EQUAL_LINES, "both shells have {equal} lines: {advice}");
    assert_eq!(in_common(&["a", "b", "c", "a"], &["b", "a", "c", "a"]), 3);
}

#[test]
fn only_what_belongs_there_lies_at_the_top() {
    // Without git, or outside a checkout, nobody can say which files belong to the repository.
    let Ok(listed) = Command::new("git").arg("ls-files").current_dir(root()).output() else {
        return;
    };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut offences: Vec<_> = listed
        .lines()
        .map(|path| path.split('/').next().unwrap_or(path).to_owned())
        .filter(|entry| !TOP_LEVEL.contains(&entry.as_str()))
        .collect();
    offences.dedup();
    assert_none("nothing else lies at the top without a reason", &offences);
}
