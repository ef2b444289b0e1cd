//! The configuration of the daemon: a file, and the environment over it.
//!
//! The bytes are the file; behind a NUL, lines of `NAME=value` are the environment. What is
//! accepted prints as what reads back the same, and becomes options for a node; what is refused
//! names a place, and neither shows the user information of a URL.

use std::path::Path;

use slipstream_tokio::daemon::config::{ConfigError, parse};

/// Takes `bytes` for a configuration file and an environment.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (file, environment) = text.split_once('\0').unwrap_or((text, ""));
    let variables: Vec<(String, String)> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let path = Path::new("/etc/slipstream.toml");
    match parse(path, file, &variables) {
        Ok(settings) => {
            let printed = settings.to_toml();
            let secret = settings.peers.iter().any(|peer| peer.url.secret().contains('@'));
            if !secret {
                let again = parse(path, &printed, &[]).expect("what was printed reads back");
                assert_eq!(again, settings, "{printed}");
                assert!(settings.needs_restart(&again).is_empty());
            }
            let _tags = settings.tags();
            let _options = settings.options();
        }
        Err(ConfigError::Invalid(problems)) => {
            assert!(!problems.is_empty(), "who is refused is told why");
            problems.iter().for_each(|problem| drop(problem.to_string()));
        }
        Err(error @ ConfigError::Read { .. }) => panic!("nothing is read: {error}"),
    }
}
