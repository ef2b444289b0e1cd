//! The configuration file: read, overridden by the environment, checked, printed.
//!
//! An error names the file, the line (or the variable), the key and what is allowed there, and
//! all errors of one kind are told at once. Values of peers' user information are never shown.

mod check;
mod draft;
mod filter;
mod settings;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};

pub use draft::KeyPlace;
pub(crate) use filter::{BadFilter, parse_filter};
pub use settings::{ListenSettings, LogFormat, LogSettings, Settings};
use toml::Table;
pub(crate) use units::masked;

/// Keys that a running node takes over.
const RELOADABLE: [&str; 3] = ["peers", "node.tags", "log.level"];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; name it with -c FILE", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it says is wrong.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    fn of(place: KeyPlace, message: String) -> Self {
        Self::Invalid(vec![Problem { place, message }])
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub place: KeyPlace,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Reads `file` and the environment of this process.
///
/// # Errors
/// [`ConfigError`] if the file cannot be read, or anything in it or in the environment is wrong.
pub fn load(file: &Path) -> Result<Settings, ConfigError> {
    let variables: Vec<_> = std::env::vars_os()
        .map(|(name, text)| (name.to_string_lossy().into(), text.to_string_lossy().into()))
        .collect();
    let failed = |source| ConfigError::Read { file: file.to_owned(), source };
    let text = std::fs::read_to_string(file).map_err(failed)?;
    parse(file, &text, &variables)
}

/// Puts the settings together from the text of `file` and from environment variables, without
/// reading either: for whoever has them from elsewhere.
///
/// # Errors
/// [`ConfigError::Invalid`] if anything in them is wrong.
pub fn parse(
    file: &Path,
    text: &str,
    variables: &[(String, String)],
) -> Result<Settings, ConfigError> {
    let mut draft = draft::ConfigDraft::new(file);
    draft.take_file(text)?;
    draft.take_environment(variables);
    let mut settings = draft.finish()?;
    let beside = file.parent().unwrap_or(Path::new("")).join(&settings.node.data_dir);
    settings.node.data_dir = std::path::absolute(&beside).unwrap_or(beside);
    Ok(settings)
}

impl Settings {
    /// The whole configuration as TOML, secrets masked.
    ///
    /// # Panics
    /// Never: every setting has a form in TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings hold nothing that TOML cannot say")
    }

    /// The keys in which `other` differs and which only a restart brings into force.
    pub fn needs_restart(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.flat(), other.flat());
        let keys = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(*value));
        let gone = theirs.iter().filter(|(key, _)| !ours.contains_key(*key));
        let differing = keys.chain(gone).map(|(key, _)| key.clone());
        differing.filter(|key| !RELOADABLE.contains(&key.as_str())).collect()
    }

    /// Every key with its value.
    fn flat(&self) -> Table {
        let table: Table = self.to_toml().parse().expect("what was printed can be read");
        let mut flat = Table::new();
        for (section, value) in table {
            match value {
                toml::Value::Table(values) => {
                    flat.extend(values.into_iter().map(|(k, v)| (format!("{section}.{k}"), v)));
                }
                other => {
                    flat.insert(section, other);
                }
            }
        }
        flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let variables: Vec<_> =
            variables.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        parse(Path::new("/etc/slipstream.toml"), text, &variables)
    }

    fn error(text: &str, variables: &[(&str, &str)]) -> String {
        load(text, variables).expect_err("must be refused").to_string()
    }

    const ID: &str = "[node]\nid = \"a\"\n";

    #[test]
    fn an_unknown_key_names_line_and_nearest() {
        let said = error(&format!("{ID}\n[heartbeat]\nintervall = \"3s\"\n"), &[]);
        assert_eq!(
            said,
            "/etc/slipstream.toml:5: unknown key heartbeat.intervall; \
             the nearest is heartbeat.interval"
        );
        let said = error(&format!("{ID}max_connections = 3\n[heartbeet]\nx = 1\n"), &[]);
        assert!(said.contains(":3: unknown key node.max_connections; the nearest is limits."));
        assert!(said.contains(":4: unknown section [heartbeet]; the nearest is [heartbeat]"));
    }

    #[test]
    fn a_wrong_type_or_unit_names_line_key_and_what_is_allowed() {
        let said = error(&format!("{ID}[store]\nmax_bytes = \"10 parsecs\""), &[]);
        assert!(
            said.starts_with("/etc/slipstream.toml:4: store.max_bytes: `10 parsecs`"),
            "{said}"
        );
        assert!(said.contains("expected a size with a unit"), "{said}");
        let said = error(&format!("{ID}[heartbeat]\ninterval = 10"), &[]);
        assert!(said.contains(":4: heartbeat.interval: "), "{said}");
        assert!(said.contains("a duration with a unit"), "{said}");
        let said = error(&format!("{ID}[store]\ndurability = \"ful\""), &[]);
        assert!(said.contains(":4: store.durability: ") && said.contains("full"), "{said}");
        let said = error(&format!("{ID}tags = [\"aws\",\n\"a,b\"]"), &[]);
        assert!(said.contains(":3: node.tags[1]: `a,b`"), "{said}");
        let said = error(&format!("{ID}[[peers]]\nurl = \"ws://gcp\""), &[]);
        assert!(said.contains(":4: peers[0].url: `ws://gcp` names no port"), "{said}");
        let said = error(&format!("{ID}x = 3\n[[peers]]\nurl = \"ws://me:secret@gcp\""), &[]);
        assert!(!said.contains("secret"), "{said}");
        let said = error(&format!("{ID}[[peers]]\nurl = \"ws://me:secret@gcp\""), &[]);
        assert!(said.contains("ws://***@gcp") && !said.contains("secret"), "{said}");
        let said = error(&format!("{ID}[limits]\nmax_tags = -1"), &[]);
        assert!(said.contains(":4: limits.max_tags: ") && said.contains("from 0 to"), "{said}");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let said = error(&format!("{ID}[heartbeat]\ntimeout = \"10s\""), &[]);
        assert!(said.contains(":4: heartbeat.timeout: must be longer"), "{said}");
        let said = error(&format!("{ID}[retry]\nmax_attempts = 0"), &[]);
        assert!(said.contains("allowed are 1 to"), "{said}");
        let said = error(&format!("{ID}[listen]\naddress = \"0.0.0.0:7400\""), &[]);
        assert!(said.contains("allow_insecure = true"), "{said}");
        assert!(error(&format!("{ID}[auth]\n"), &[]).contains("not available in this version"));
        assert!(error(&format!("{ID}[listen.tls]\n"), &[]).contains(":3: [listen.tls] is not"));
        assert!(error("", &[]).contains("node.id is missing"));
        assert!(error("[node\n", &[]).contains(":1: not TOML"));
    }

    #[test]
    fn the_environment_overrides_and_adds() {
        let settings = load(
            "[store]\nmax_bytes = \"1GiB\"\n[[peers]]\nurl = \"ws://old:1\"",
            &[
                ("SLIPSTREAM_NODE__ID", "b"),
                ("SLIPSTREAM_STORE__MAX_BYTES", "2GiB"),
                ("SLIPSTREAM_NODE__TAGS", "[\"x\", \"y\"]"),
                ("SLIPSTREAM_RETRY__MAX_RATE", "5"),
                ("SLIPSTREAM_LISTEN__ALLOW_INSECURE", "true"),
                ("SLIPSTREAM_PEERS", "[\"ws://new:1\"]"),
                ("SLIPSTREAM_PORT_7400_TCP_ADDR", "10.0.0.1"),
                ("PATH", "/bin"),
            ],
        )
        .expect("good");
        assert_eq!(settings.node.id.as_str(), "b");
        assert_eq!(settings.store.max_bytes.bytes(), 2 << 30);
        assert_eq!(settings.tags().as_str(), "x,y");
        assert_eq!(settings.retry.max_rate, 5);
        assert!(settings.listen.allow_insecure);
        assert_eq!(settings.peer_urls(), ["ws://new:1"]);
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let said = error(ID, &[("SLIPSTREAM_STORE__MAX_BYTE", "1GiB")]);
        assert_eq!(
            said,
            "environment variable SLIPSTREAM_STORE__MAX_BYTE: overrides no key; \
             the nearest is SLIPSTREAM_STORE__MAX_BYTES"
        );
        assert!(error(ID, &[("SLIPSTREAM_NODE_ID", "b")]).contains("SLIPSTREAM_NODE__ID"));
        let said = error(ID, &[("SLIPSTREAM_STORE__MAX_BYTES", "much")]);
        assert!(said.contains("variable SLIPSTREAM_STORE__MAX_BYTES: store.max_bytes: `much`"));
        assert!(error(ID, &[("SLIPSTREAM_RETRY__MAX_RATE", "x")]).contains("a whole number"));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for text in [ID, "[node]\nid = \"a\"\ncluster_group = \"g\"\n[[peers]]\nurl = \"ws://b:1\""]
        {
            let settings = load(text, &[]).expect("good");
            let printed = settings.to_toml();
            assert_eq!(load(&printed, &[]).expect("good"), settings, "{printed}");
        }
        let printed = load(ID, &[]).expect("good").to_toml();
        for line in ["interval = \"10s\"", "max_bytes = \"10GiB\"", "session_ttl = \"30d\""] {
            assert!(printed.contains(line), "{printed}");
        }
    }

    #[test]
    fn a_small_store_keeps_less_history() {
        let settings = load(&format!("{ID}[store]\nmax_bytes = \"64MiB\""), &[]).expect("good");
        assert_eq!(settings.store.history_max_bytes.bytes(), 16 << 20);
    }

    #[test]
    fn only_what_cannot_change_while_running_needs_a_restart() {
        let old = load(ID, &[]).expect("good");
        let text = "[node]\nid = \"a\"\ntags = [\"x\"]\ncluster_group = \"g\"\n[log]\nlevel = \
                    \"debug\"\n[retry]\nmax_rate = 7\n[[peers]]\nurl = \"ws://b:1\"";
        let new = load(text, &[]).expect("good");
        assert_eq!(old.needs_restart(&new), ["retry.max_rate", "node.cluster_group"]);
    }
}
