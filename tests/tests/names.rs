//! One word for one thing: a type name is defined once in product code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of product code.
const PRODUCT: [&str; 5] =
    ["core/src", "store-sqlite/src", "shell/src", "runtime-tokio/src", "runtime-smol/src"];

/// The two shells have the same files with the same names, each for its runtime: what lies in these
/// folders themselves is one place, and what lies below them, as the daemon, is not.
const SHELLS: [&str; 2] = ["runtime-tokio/src/", "runtime-smol/src/"];

/// Names that are defined more than once on purpose: where, and why.
const ON_PURPOSE: [(&str, &[&str], &str); 4] = [
    (
        "Access",
        &["store-sqlite/src/access.rs", "store-sqlite/src/access.rs"],
        "one for each operating system: only one of the two is compiled",
    ),
    (
        "DiskFile",
        &["store-sqlite/src/room.rs", "store-sqlite/src/room.rs"],
        "one for each operating system: only one of the two is compiled",
    ),
    (
        "Node",
        &["core/src/node/mod.rs", "lib.rs of both shells"],
        "who embeds a node has no other: the state machine is inside of it",
    ),
    (
        "Progress",
        &[
            "runtime-tokio/src/daemon/commands/publish/progress.rs",
            "runtime-tokio/src/daemon/commands/publish/progress.rs",
        ],
        "with and without the feature `tools`: only one of the two is compiled",
    ),
];

/// Macros that define a type for each line such as `LinkId(u64)` or `Room[config] { time, log }`.
const DEFINING_MACROS: [&str; 2] = ["number! {", "handlers! {$"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

/// Source files, by their paths from the root.
fn sources(folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            let path = path.strip_prefix(root()).expect("it lies under the root");
            found.insert(path.to_string_lossy().replace('\\', "/"), text);
        }
    }
}

/// The item behind its visibility, and whether it has one.
fn item(line: &str) -> (&str, bool) {
    let code = line.trim_start();
    let restricted = || code.strip_prefix("pub(").and_then(|rest| rest.split_once(") "));
    let bare = code.strip_prefix("pub ").or_else(|| restricted().map(|(_, item)| item));
    bare.map_or((code, false), |item| (item, true))
}

/// What a file says about types, without its test modules: the names that it defines, and the
/// modules in files of their own that are compiled for tests alone.
fn read(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut names, mut tests) = (Vec::new(), Vec::new());
    let mut is_for_tests = false;
    let mut in_macro = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if code == "#[cfg(test)]" {
            is_for_tests = true;
            continue;
        } else if code.starts_with("#[") || code.starts_with("//") {
            continue;
        }
        let (item, _) = item(line);
        if let (true, Some(module)) = (is_for_tests, item.strip_prefix("mod ")) {
            if let Some(module) = module.strip_suffix(';') {
                tests.push(module);
            } else {
                let close = format!("{}}}", &line[..line.len() - code.len()]);
                lines.by_ref().find(|line| **line == close);
            }
        } else if in_macro && !code.is_empty() && code != "}" {
            names.extend(code.split(['(', '[']).next());
        } else {
            names.extend(defined(line));
        }
        is_for_tests = false;
        in_macro = line != "}" && (in_macro || DEFINING_MACROS.contains(&line));
    }
    (names, tests)
}

/// The name that a line defines. A type of an `impl` or a `trait` has the name that the trait gives
/// it, and no visibility. What only gives a type its runtime, under the same name, defines none.
fn defined(line: &str) -> Option<&str> {
    let (item, is_visible) = item(line);
    let item = item.strip_prefix("unsafe ").unwrap_or(item);
    let (kind, rest) = item.split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    let is_definition = match kind {
        "struct" | "enum" | "trait" | "union" => true,
        "type" => {
            let is_item = is_visible || !line.starts_with(' ');
            is_item && !rest.contains(&format!("::{name}<"))
        }
        _ => false,
    };
    (is_definition && name.starts_with(char::is_uppercase)).then_some(name)
}

/// The file or folder of a module that a file declares.
fn below(file: &str, module: &str) -> [String; 2] {
    let path = PathBuf::from(file);
    let is_folder = path.file_stem().is_some_and(|stem| stem == "mod" || stem == "lib");
    let folder = if is_folder { path.parent().unwrap_or(&path) } else { &path.with_extension("") };
    let module = folder.join(module).to_string_lossy().replace('\\', "/");
    [format!("{module}.rs"), format!("{module}/")]
}

/// Where a file lies, as `ON_PURPOSE` says it.
fn place(file: &str) -> String {
    let of_shell = SHELLS.iter().find_map(|shell| file.strip_prefix(shell));
    let shared = of_shell.filter(|name| !name.contains('/'));
    shared.map_or_else(|| file.to_owned(), |name| format!("{name} of both shells"))
}

// keeps: one-name
#[test]
fn a_type_name_is_defined_once() {
    let mut files = BTreeMap::new();
    for folder in PRODUCT {
        sources(&root().join(folder), &mut files);
        assert!(files.keys().any(|file| file.starts_with(folder)), "{folder} has no sources");
    }
    let for_tests: Vec<String> = files
        .iter()
        .flat_map(|(file, text)| read(text).1.into_iter().flat_map(|module| below(file, module)))
        .collect();
    files.retain(|file, _| !for_tests.iter().any(|path| file.starts_with(path.as_str())));
    let mut names: BTreeMap<&str, Vec<(String, &str)>> = BTreeMap::new();
    for (file, text) in &files {
        for name in read(text).0 {
            names.entry(name).or_default().push((place(file), file));
        }
    }
    for name in ["Node", "LinkId", "Ingest", "Connection"] {
        assert!(names.contains_key(name), "the definition of {name} is not found");
    }
    for places in names.values_mut() {
        places.sort();
        places.dedup_by(|one, other| one.0 == other.0 && one.1 != other.1);
    }
    names.retain(|_, places| places.len() > 1);
    let mut unseen: BTreeSet<&str> = ON_PURPOSE.iter().map(|(name, ..)| *name).collect();
    names.retain(|name, places| {
        let known = ON_PURPOSE.iter().find(|(known, ..)| known == name);
        let is_known =
            known.is_some_and(|(_, known, _)| places.iter().map(|(place, _)| place).eq(*known));
        !(is_known && unseen.remove(name))
    });
    let twice: Vec<String> = names
        .into_iter()
        .map(|(name, places)| {
            let places: Vec<String> = places.into_iter().map(|(place, _)| place).collect();
            format!("{name}: {}", places.join(", "))
        })
        .collect();
    assert!(twice.is_empty(), "say in each name what it is there:\n  {}", twice.join("\n  "));
    assert!(unseen.is_empty(), "on the list, and not defined there more than once: {unseen:?}");
}

#[test]
fn definitions_are_found_wherever_they_stand() {
    let text = "\
#[cfg(test)]
pub(crate) mod by_hand;
pub struct One<T>(other::One<T>);
impl Two for One {
    type Item = u8;
}
mod inner {
    pub(in super::super) enum Three {}
    pub type Four = u8;
}
pub type Five = core::Five<Runtime>;
fn local() {
    union Six {}
}
number! {
    /// A number.
    Seven(u64)
}
#[cfg(test)]
#[expect(unused)]
mod tests {
    struct Eight;
}
pub(crate) unsafe trait Nine {}
";
    let (names, tests) = read(text);
    assert_eq!(names, ["One", "Three", "Four", "Six", "Seven", "Nine"]);
    assert_eq!(tests, ["by_hand"]);
    assert_eq!(below("a/lib.rs", "b"), ["a/b.rs", "a/b/"]);
    assert_eq!(below("a/b.rs", "c"), ["a/b/c.rs", "a/b/c/"]);
    assert_eq!(place("runtime-smol/src/net.rs"), place("runtime-tokio/src/net.rs"));
    assert_eq!(place("runtime-tokio/src/daemon/net.rs"), "runtime-tokio/src/daemon/net.rs");
}
