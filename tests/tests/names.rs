//! One word for one thing: a type name is defined once in product code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of product code, and who a name belongs to there. The two shells have the same files
/// with the same names, each for its runtime.
const PRODUCT: [(&str, &str); 5] = [
    ("core/src", "core"),
    ("store-sqlite/src", "store"),
    ("shell/src", "shell"),
    ("runtime-tokio/src", "tokio"),
    ("runtime-smol/src", "smol"),
];

/// What both shells define, each for its runtime.
const OF_BOTH_SHELLS: [&str; 2] = ["tokio", "smol"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the repository")
}

/// Source files without those that hold only tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry can be read").path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if is_test || path.ends_with("host/runtime/by_hand.rs") {
            continue;
        } else if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The name that a line defines, if it defines a type outside of `impl` and `trait` blocks, where a
/// type has the name that the trait gives it; or a handler of a node, as in `Room[] { time }`. What
/// only gives a type its runtime, under the same name, defines none.
fn defined(line: &str) -> Option<&str> {
    if let Some((name, _)) = line.strip_prefix("    ").and_then(|rest| rest.split_once('[')) {
        let is_handler = line.ends_with(" }") && name.chars().all(char::is_alphanumeric);
        return Some(name).filter(|_| is_handler);
    }
    let item = line.strip_prefix("pub ").or_else(|| {
        let rest = line.strip_prefix("pub(")?;
        rest.split_once(") ").map(|(_, item)| item)
    });
    let item = item.unwrap_or(line);
    let kinds = ["struct ", "enum ", "trait ", "union ", "type "];
    let name = kinds.iter().find_map(|kind| item.strip_prefix(kind))?;
    let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    Some(name).filter(|name| !line.contains(&format!("::{name}<")))
}

// keeps: one-name
#[test]
fn a_type_name_is_defined_once() {
    let mut names: BTreeMap<String, Vec<(&str, String)>> = BTreeMap::new();
    for (folder, owner) in PRODUCT {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        assert!(!files.is_empty(), "there are no sources in {folder}");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file is UTF-8");
            let product = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            for name in product.lines().filter_map(defined) {
                let path = file.strip_prefix(root()).expect("it lies under the root");
                let place = (owner, path.to_string_lossy().replace('\\', "/"));
                names.entry(name.into()).or_default().push(place);
            }
        }
    }
    assert!(names.contains_key("Node"), "no definition is found");
    let is_of_both_shells = |places: &[(&str, String)]| {
        places.iter().map(|(owner, _)| *owner).collect::<Vec<_>>() == OF_BOTH_SHELLS
    };
    names.retain(|_, places| places.len() > 1 && !is_of_both_shells(places));
    let lines = names.into_iter().map(|(name, places)| {
        let files: Vec<String> = places.into_iter().map(|(_, file)| file).collect();
        format!("{name}: {}", files.join(", "))
    });
    let twice: Vec<String> = lines.collect();
    assert!(twice.is_empty(), "say in each name what it is there:\n  {}", twice.join("\n  "));
}
