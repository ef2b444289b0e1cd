//! A configuration on its way: the defaults, the file over them, the environment over both, and
//! for every value where it was written.
//!
//! The keys that exist are those of the defaults and [`WITHOUT_DEFAULT`]; nothing else lists them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use slipstream_core::nearest::edits;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{ConfigError, Problem, Settings, units::Size};

/// Keys that have no default.
const WITHOUT_DEFAULT: [&str; 3] = ["node.id", "node.cluster_group", "peers.url"];

/// Sections that later versions know.
const NOT_YET: [&str; 4] = ["auth", "tls", "listen.tls", "peers.tls"];

/// What overrides begin with.
const PREFIX: &str = "SLIPSTREAM_";

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file, on this line.
    Line(PathBuf, usize),
    /// Somewhere in a file, or missing there.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// A configuration that is being put together.
pub(super) struct ConfigDraft<'a> {
    file: &'a Path,
    table: Table,
    keys: BTreeMap<String, Option<Value>>,
    places: BTreeMap<String, KeyPlace>,
    problems: Vec<Problem>,
}

impl<'a> ConfigDraft<'a> {
    /// The defaults, to be overridden by `file`.
    pub(super) fn new(file: &'a Path) -> Self {
        let table: Table =
            include_str!("defaults.toml").parse().expect("the built-in defaults are well-formed");
        let mut keys: BTreeMap<_, _> =
            WITHOUT_DEFAULT.iter().map(|key| ((*key).to_owned(), None)).collect();
        for (section, values) in &table {
            for (key, value) in values.as_table().into_iter().flatten() {
                keys.insert(format!("{section}.{key}"), Some(value.clone()));
            }
        }
        Self { file, table, keys, places: BTreeMap::new(), problems: Vec::new() }
    }

    /// Lays the text of the file over what is there.
    pub(super) fn take_file(&mut self, text: &str) -> Result<(), ConfigError> {
        let line_of = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count();
        let broken = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            let place = KeyPlace::Line(self.file.to_owned(), line);
            ConfigError::of(place, format!("not TOML: {}", error.message()))
        };
        let spans = DeTable::parse(text).map_err(broken)?;
        let values: Table = text.parse().map_err(broken)?;
        let mut lines = BTreeMap::new();
        for (name, section) in spans.get_ref() {
            note_lines(&mut lines, name.get_ref(), name.span().start, section, &line_of);
        }
        for (section, value) in values {
            self.take_section(&section, value, &lines);
        }
        Ok(())
    }

    fn take_section(&mut self, section: &str, value: Value, lines: &BTreeMap<String, usize>) {
        let file = self.file;
        let place = |path: &str| match lines.get(path) {
            Some(line) => KeyPlace::Line(file.to_owned(), *line),
            None => KeyPlace::File(file.to_owned()),
        };
        if NOT_YET.contains(&section) {
            self.problem(place(section), not_yet(section));
            return;
        }
        match value {
            Value::Array(peers) if section == "peers" => {
                for (index, peer) in peers.iter().enumerate() {
                    let keys = peer.as_table().into_iter().flat_map(Table::keys);
                    for key in keys.map(String::as_str) {
                        let path = format!("peers[{index}].{key}");
                        self.take_key("peers", key, None, place(&path), path);
                    }
                }
                let peers = peers.into_iter().map(peer_table).collect();
                self.table.insert(section.to_owned(), Value::Array(peers));
            }
            Value::Table(values) if self.table.contains_key(section) => {
                for (key, value) in values {
                    let path = format!("{section}.{key}");
                    self.take_key(section, &key, Some(value), place(&path), path);
                }
            }
            _ if section == "peers" => {
                self.problem(place(section), "peers is a list of tables: write [[peers]]".into());
            }
            _ if self.table.contains_key(section) => {
                self.problem(place(section), format!("{section} is a section: [{section}]"));
            }
            Value::Table(_) => {
                let message = match nearest(section, self.sections()) {
                    Some(near) => format!("unknown section [{section}]; the nearest is [{near}]"),
                    None => format!("unknown section [{section}]"),
                };
                self.problem(place(section), message);
            }
            _ => self.unknown(place(section), section),
        }
    }

    /// Notes the place of one key and sets it, where there is a value to set.
    fn take_key(
        &mut self,
        section: &str,
        key: &str,
        value: Option<Value>,
        place: KeyPlace,
        path: String,
    ) {
        let name = format!("{section}.{key}");
        if NOT_YET.contains(&name.as_str()) {
            self.problem(place, not_yet(&name));
        } else if !self.keys.contains_key(&name) {
            self.unknown(place, &name);
        } else {
            self.places.insert(path, place);
            if let (Some(value), Some(Value::Table(table))) = (value, self.table.get_mut(section)) {
                table.insert(key.to_owned(), value);
            }
        }
    }

    /// Lays the environment over what is there.
    pub(super) fn take_environment(&mut self, variables: &[(String, String)]) {
        for (name, text) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if is_service_link(rest) {
                continue;
            }
            let path = rest.to_ascii_lowercase().replacen("__", ".", 1);
            let known = path == "peers" || (path != "peers.url" && self.keys.contains_key(&path));
            if !known || rest.chars().any(|c| c.is_ascii_lowercase()) {
                self.unknown_variable(name, &path);
                continue;
            }
            match self.variable_value(&path, text) {
                Ok(value) => self.set_from_variable(name, &path, value),
                Err(message) => {
                    self.problem(KeyPlace::Variable(name.clone()), format!("{path} {message}"));
                }
            }
        }
    }

    fn set_from_variable(&mut self, name: &str, path: &str, value: Value) {
        let place = KeyPlace::Variable(name.to_owned());
        if path == "peers" {
            self.places.retain(|key, _| !key.starts_with("peers"));
            self.table.insert(path.to_owned(), value);
        } else if let Some((section, key)) = path.split_once('.')
            && let Some(Value::Table(table)) = self.table.get_mut(section)
        {
            table.insert(key.to_owned(), value);
        }
        self.places.insert(path.to_owned(), place);
    }

    /// What `text` means for this key: strings stand bare, everything else is as in the file.
    fn variable_value(&self, path: &str, text: &str) -> Result<Value, String> {
        let parse = || {
            let mut table: Table = format!("value = {text}").parse().ok()?;
            (table.len() == 1).then(|| table.remove("value")).flatten()
        };
        let default = self.keys.get(path).and_then(Option::as_ref);
        match default {
            _ if path == "peers" => match parse() {
                Some(Value::Array(peers)) => {
                    Ok(Value::Array(peers.into_iter().map(peer_table).collect()))
                }
                _ => Err("needs a TOML array of URLs, such as [\"ws://gcp-1:7400\"]".into()),
            },
            Some(Value::Array(_)) => match parse() {
                Some(list @ Value::Array(_)) => Ok(list),
                _ => Err("needs a TOML array, such as [\"one\", \"two\"]".into()),
            },
            Some(Value::Integer(_)) => match text.parse() {
                Ok(number) => Ok(Value::Integer(number)),
                Err(_) => Err(format!("needs a whole number, not `{text}`")),
            },
            Some(Value::Boolean(_)) => match text.parse() {
                Ok(switch) => Ok(Value::Boolean(switch)),
                Err(_) => Err(format!("needs true or false, not `{text}`")),
            },
            _ => Ok(Value::String(text.to_owned())),
        }
    }

    /// The settings, or everything that is wrong with them.
    pub(super) fn finish(mut self) -> Result<Settings, ConfigError> {
        if !self.places.contains_key("node.id") {
            let place = KeyPlace::File(self.file.to_owned());
            let message = "node.id is missing: give the node a name that is unique in the mesh";
            self.problem(place, message.into());
        }
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid(self.problems));
        }
        let mut settings: Settings =
            serde_path_to_error::deserialize(self.table.clone()).map_err(|error| {
                let path = error.path().to_string();
                ConfigError::of(self.place(&path), format!("{path}: {}", error.inner().message()))
            })?;
        if !self.places.contains_key("store.history_max_bytes") {
            let quarter = settings.store.max_bytes.bytes() / 4;
            if settings.store.history_max_bytes.bytes() > quarter {
                settings.store.history_max_bytes = Size::of(quarter);
            }
        }
        let problems: Vec<_> = super::check::problems(&settings)
            .into_iter()
            .map(|(key, message)| Problem { place: self.place(&key), message })
            .collect();
        if problems.is_empty() { Ok(settings) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// Where the value at `path`, or what holds it, was written.
    fn place(&self, path: &str) -> KeyPlace {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return KeyPlace::File(self.file.to_owned()),
            }
        }
    }

    fn problem(&mut self, place: KeyPlace, message: String) {
        self.problems.push(Problem { place, message });
    }

    fn unknown(&mut self, place: KeyPlace, name: &str) {
        let message = match nearest(name, self.keys.keys().map(String::as_str)) {
            Some(near) => format!("unknown key {name}; the nearest is {near}"),
            None => format!("unknown key {name}"),
        };
        self.problem(place, message);
    }

    fn unknown_variable(&mut self, name: &str, path: &str) {
        let keys = self.keys.keys().map(String::as_str);
        let keys = keys.filter(|key| *key != "peers.url").chain(["peers"]);
        let message = match nearest(path, keys) {
            Some(near) => {
                let near = near.to_ascii_uppercase().replace('.', "__");
                format!("overrides no key; the nearest is {PREFIX}{near}")
            }
            None => "overrides no key".to_owned(),
        };
        self.problem(KeyPlace::Variable(name.to_owned()), message);
    }

    fn sections(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str).chain(["peers"])
    }
}

fn not_yet(name: &str) -> String {
    format!("[{name}] is not available in this version: take the section out")
}

/// A peer as the file has it, from a bare URL or a table.
fn peer_table(peer: Value) -> Value {
    match peer {
        url @ Value::String(_) => Value::Table(Table::from_iter([("url".to_owned(), url)])),
        other => other,
    }
}

/// Whether Kubernetes made this variable, for a service that is called `slipstream`.
fn is_service_link(rest: &str) -> bool {
    let is_link = rest.ends_with("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || rest == "PORT"
        || rest.ends_with("_PORT")
        || rest.contains("PORT_")
            && ["_TCP", "_UDP", "_SCTP"].iter().any(|kind| rest.contains(kind));
    is_link && !rest.contains("__")
}

/// Notes on which line each key of `value` stands, under the path that errors name.
fn note_lines(
    lines: &mut BTreeMap<String, usize>,
    path: &str,
    offset: usize,
    value: &Spanned<DeValue<'_>>,
    line_of: &impl Fn(usize) -> usize,
) {
    lines.insert(path.to_owned(), line_of(offset));
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                let path = format!("{path}.{}", key.get_ref());
                note_lines(lines, &path, key.span().start, value, line_of);
            }
        }
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                note_lines(lines, &path, item.span().start, item, line_of);
            }
        }
        _ => {}
    }
}

/// The candidate that takes the fewest edits, the key counting more than its section.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    candidates.min_by_key(|candidate| {
        let whole = edits(name, candidate);
        let elsewhere = edits(&bare(name), &bare(candidate));
        (whole.min(2 * elsewhere + 2), whole)
    })
}
