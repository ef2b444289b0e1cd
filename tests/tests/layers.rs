//! The core is made of layers: a module uses its own layer and those before it, and no other. In no
//! folder of the product do two modules use each other, directly or round a circle.
//!
//! Read are the trees of `use` and the paths that stand in the code, comments and tests left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of the core, lowest first: each is a folder of `core/src`, or a file.
const LAYERS: [&str; 12] = [
    "types", "config", "wire", "store", "admin", "io", "log", "session", "mesh", "node", "app",
    "host",
];

/// Most entries of `core/src`.
const MAX_ENTRIES: usize = 16;

/// Crates besides the core whose modules are in no circle.
const CRATES: [&str; 4] = ["store-sqlite", "shell", "runtime-tokio", "runtime-smol"];

/// The program around a shell: its commands name the tools, and the tools take what commands share.
const PROGRAM: [&str; 2] = ["daemon", "tools"];

/// A module: its path from the root of the crate, and its code without tests.
struct Module {
    path: Vec<String>,
    code: String,
}

fn sources(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src")
}

/// The modules of a crate, without those that hold only tests.
fn modules(name: &str) -> Vec<Module> {
    let sources = sources(name);
    let (mut found, mut folders) = (Vec::new(), vec![sources.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("an entry can be read").path();
            let place = path.strip_prefix(&sources).expect("it lies below").with_extension("");
            let mut names: Vec<String> =
                place.iter().map(|name| name.to_string_lossy().into_owned()).collect();
            let is_test =
                names.iter().any(|name| ["tests", "vectors", "by_hand"].contains(&name.as_str()));
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") && !is_test && names != ["lib"]
            {
                names.retain(|name| name != "mod");
                let text = fs::read_to_string(&path).expect("a source is UTF-8");
                let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let code = product.lines().map(|line| line.split("//").next().unwrap_or(line));
                found.push(Module { path: names, code: code.collect::<Vec<_>>().join("\n") });
            }
        }
    }
    found
}

/// Adds the paths of a tree, which begins with `prefix`, and answers what stands behind it.
fn read_tree<'a>(text: &'a str, prefix: &[&'a str], paths: &mut Vec<Vec<String>>) -> &'a str {
    let (mut path, mut rest) = (prefix.to_vec(), text.trim_start());
    loop {
        if let Some(mut list) = rest.strip_prefix('{') {
            while !list.trim_start().starts_with('}') {
                list = read_tree(list, &path, paths).trim_start().trim_start_matches(',');
            }
            return &list.trim_start()[1..];
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(&rest[..end]);
        match rest[end..].strip_prefix("::") {
            Some(behind) if end > 0 => rest = behind,
            _ => break,
        }
    }
    paths.push(path.iter().map(|name| (*name).to_owned()).collect());
    let end = rest.find([',', '}', ';']).unwrap_or(rest.len());
    &rest[end..]
}

impl Module {
    /// Every path that begins with `crate`, `self` or `super`, from the root of the crate.
    fn uses(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        for start in ["crate::", "self::", "super::"] {
            for (at, _) in self.code.match_indices(start) {
                let before = self.code[..at].chars().next_back().unwrap_or(' ');
                if !before.is_alphanumeric() && !"_:$".contains(before) {
                    read_tree(&self.code[at..], &[], &mut paths);
                }
            }
        }
        paths.into_iter().map(|path| self.resolve(&path)).collect()
    }

    fn resolve(&self, path: &[String]) -> Vec<String> {
        let mut place = self.path.clone();
        let mut names = path.iter().map(String::as_str).peekable();
        if names.next_if_eq(&"crate").is_some() {
            place.clear();
        }
        while let Some(name) = names.next_if(|name| ["self", "super"].contains(name)) {
            if name == "super" {
                place.pop();
            }
        }
        place.extend(names.map(str::to_owned));
        place
    }
}

/// Where in the order a module stands, by the first name of its path.
fn height(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == name)
}

// keeps: layers
#[test]
fn a_module_uses_only_the_layers_before_its_own() {
    let mut climbing = BTreeSet::new();
    for module in modules("core").iter().filter(|module| module.path != ["docs"]) {
        let own = height(&module.path[0]);
        assert!(own.is_some(), "{} is of no layer", module.path[0]);
        for used in module.uses() {
            // What is no layer is an alias for the outside.
            if height(&used[0]).is_none_or(|layer| Some(layer) > own) {
                climbing.insert(format!("{} -> {}", module.path.join("::"), used.join("::")));
            }
        }
    }
    assert_eq!(climbing, BTreeSet::new(), "imports that climb");
}

/// Takes away what leads to nothing that is left, until only circles and what leads to them are.
fn circles(mut uses: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    loop {
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        uses.retain(|_, used| used.iter().any(|name| left.contains(name)));
        if uses.len() == left.len() {
            return left.into_iter().collect();
        }
    }
}

/// Those of a folder's modules that use each other; a folder within it is one module.
fn circles_in(folder: &[String], modules: &[Module]) -> Vec<String> {
    let inside = |path: &[String]| -> Option<String> {
        path.strip_prefix(folder).and_then(|behind| behind.first()).cloned()
    };
    let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
    for module in modules {
        let Some(own) = inside(&module.path).filter(|own| !PROGRAM.contains(&own.as_str())) else {
            continue;
        };
        let others = module.uses().into_iter().filter_map(|path| inside(&path));
        let others = others.filter(|other| *other != own).collect::<Vec<_>>();
        uses.entry(own).or_default().extend(others);
    }
    circles(uses)
}

// keeps: layers
#[test]
fn no_modules_of_a_layer_use_each_other() {
    let modules = modules("core");
    for layer in LAYERS {
        let circles = circles_in(&[layer.to_owned()], &modules);
        assert_eq!(circles, Vec::<String>::new(), "modules of {layer} in a circle");
    }
}

// keeps: layers
#[test]
fn no_modules_of_store_shell_or_daemon_use_each_other() {
    for name in CRATES {
        let modules = modules(name);
        let within = |module: &Module| {
            (0..module.path.len()).map(|end| module.path[..end].to_vec()).collect::<Vec<_>>()
        };
        for folder in modules.iter().flat_map(within).collect::<BTreeSet<_>>() {
            let circles = circles_in(&folder, &modules);
            let place = folder.join("/");
            assert_eq!(circles, Vec::<String>::new(), "modules of {name}/src/{place} in a circle");
        }
    }
}

// keeps: layers
#[test]
fn the_core_has_few_entries() {
    let entries = fs::read_dir(sources("core")).expect("the core has sources").count();
    assert!(entries <= MAX_ENTRIES, "core/src has {entries} entries of {MAX_ENTRIES}");
}
