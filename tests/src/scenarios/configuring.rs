//! Configuration and command line: mistakes are named, with what to do (section 2 and 3 of the
//! interfaces).

use crate::harness::{App, Command, Daemon, Finished, Message, NodeConfig};

/// A wrong key ends with exit code 2, the file, the line and the nearest key that exists.
pub fn a_wrong_key_is_named(binary: &str) {
    let wrong = [
        ("[node]\nid = \"aws\"\n\n[store]\nmax_byte = \"1GiB\"\n", 5, "max_bytes"),
        ("[node]\nid = \"aws\"\n[retrry]\nmax_attempts = 3\n", 3, "retry"),
        ("[node]\nidd = \"aws\"\n", 2, "id"),
        ("[node]\nid = \"aws\"\n[[peers]]\nurll = \"ws://127.0.0.1:1\"\n", 4, "url"),
    ];
    for (toml, line, nearest) in wrong {
        for command in ["run", "check"] {
            let ended = with_file(binary, command, toml);
            assert_eq!(ended.code, Some(2), "{toml}{ended:?}");
            let says = &ended.stderr;
            assert!(says.contains("slipstream.toml"), "the file: {says}");
            let names_line =
                says.contains(&format!(":{line}")) || says.contains(&format!("line {line}"));
            assert!(names_line, "line {line}: {says}");
            assert!(says.contains(nearest), "the nearest key, {nearest}: {says}");
        }
    }
}

/// Values that cannot be are named by their key.
pub fn a_wrong_value_is_named(binary: &str) {
    let wrong = [
        ("[node]\ntags = [\"a\"]\n", "id"),
        ("[node]\nid = \"a b\"\n", "id"),
        ("[node]\nid = \"aws\"\ntags = [\"a b\"]\n", "tags"),
        ("[node]\nid = \"aws\"\n[store]\nmax_bytes = \"many\"\n", "max_bytes"),
        ("[node]\nid = \"aws\"\n[retry]\nack_timeout = 5\n", "ack_timeout"),
        ("[node]\nid = \"aws\"\n[retry]\nmax_attempts = \"three\"\n", "max_attempts"),
        ("[node]\nid = \"aws\"\n[store]\ndurability = \"some\"\n", "durability"),
        ("[node]\nid = \"aws\"\n[[peers]]\nurl = \"nowhere\"\n", "url"),
        ("[node]\nid = \"aws\"\n[listen]\naddress = \"0.0.0.0:7400\"\n", "allow_insecure"),
        ("[node]\nid = \"aws\"\n[listen]\nadmin = \"0.0.0.0:7401\"\n", "admin_allow_insecure"),
    ];
    for (toml, key) in wrong {
        let ended = with_file(binary, "check", toml);
        assert_eq!(ended.code, Some(2), "{toml}{ended:?}");
        assert!(ended.stderr.contains(key), "{toml}names {key}: {}", ended.stderr);
    }
}

/// `check` prints everything with its defaults; the environment overrides the file.
pub fn check_prints_what_counts(binary: &str) {
    let node = Daemon::prepare(binary, NodeConfig::new("aws").tags(&["production"]));
    let file = node.config_file();
    let file = file.to_str().expect("temporary folders have plain names");
    let printed = Command::new(binary, &["check", "-c", file]).run().ok();
    for part in ["aws", "production", "session_max_bytes", "10GiB", "30s", "delivery_window"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    let printed = Command::new(binary, &["check", "-c", file])
        .env("SLIPSTREAM_NODE__ID", "zebra")
        .env("SLIPSTREAM_NODE__TAGS", r#"["striped", "quick"]"#)
        .env("SLIPSTREAM_STORE__MAX_BYTES", "3GiB")
        .run()
        .ok();
    for part in ["zebra", "striped", "quick", "3GiB"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(!printed.contains("production"), "a list is replaced as a whole: {printed}");
}

/// Wrong usage is 2, what failed is 1; both say what to do on standard error only.
pub fn exit_codes_tell_what_went_wrong(binary: &str) {
    for args in [&["banana"][..], &["pub", "SK", "k"], &["run"], &["run", "-c", "/nowhere.toml"]] {
        let ended = Command::new(binary, args).run();
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty() && ended.stdout.is_empty(), "{args:?}: {ended:?}");
    }
    let nobody = NodeConfig::new("nobody");
    let url = format!("ws://{}", nobody.address);
    let ended = Command::new(binary, &["pub", "SK", "k", "1", "--url", &url]).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&nobody.address), "names where: {}", ended.stderr);
    let help = Command::new(binary, &["pub", "--help"]).run().ok();
    assert!(help.contains("--url"), "{help}");
}

/// `pub` and `sub` do for a person what the frames do for a program.
pub fn publishing_by_hand(binary: &str) {
    let node = Daemon::start(binary, NodeConfig::new("aws").tags(&["aws"]));
    let mut watcher = App::connect(&node, "tags=azure");
    let url = format!("ws://{}", node.config.address);
    let publish = |kind: &str, value: &str, more: &[&str]| {
        let args = [&["pub", kind, "order:1", value, "--url", &url][..], more].concat();
        Command::new(binary, &args).run()
    };
    let named = ["--client", "till", "--id", "m-1", "--tags", "azure,gcp"];
    publish("SK", r#"{"n":1.10}"#, &named).ok();
    publish("SK", r#"{"n":1.10}"#, &named).ok();
    let refused = publish("SK", r#"{"n":1.1}"#, &named);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("ID_REUSED"), "{}", refused.stderr);
    publish("CMD", r#""reboot""#, &["--ttl", "60s", "--id", "m-2"]).ok();
    assert_ne!(publish("SK", "{not json", &[]).code, Some(0));

    let handed = watcher.delivery();
    assert_eq!((handed.id(), handed.value_text()), ("m-1", r#"{"n":1.10}"#));
    assert_eq!(handed.targeted_tags.as_deref(), Some(&["azure".to_owned(), "gcp".to_owned()][..]));
    assert_eq!(watcher.delivery().id(), "m-2");

    let sub = ["sub", "--url", &url, "--client", "out", "--count", "1", "--timeout", "30s"];
    let printed = Command::new(binary, &sub).run().ok();
    assert!(printed.contains("m-2") && printed.lines().count() == 1, "{printed}");
    App::connect(&node, "").publish(&Message::state("m-3", "order:3", "3"));
    let printed = Command::new(binary, &sub).run().ok();
    assert!(printed.contains("m-3"), "what was printed is acknowledged: {printed}");
}

fn with_file(binary: &str, command: &str, toml: &str) -> Finished {
    let node = Daemon::prepare(binary, NodeConfig::new("aws"));
    node.overwrite_config(toml);
    let file = node.config_file();
    let file = file.to_str().expect("temporary folders have plain names");
    Command::new(binary, &[command, "-c", file]).run()
}
