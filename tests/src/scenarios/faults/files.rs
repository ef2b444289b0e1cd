//! The files of a running node are removed, moved, replaced or cut: it acknowledges nothing more,
//! and ends with code 3 and the name of the file (P1). And a node that may not write any.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::ExitStatus;

use crate::harness::{App, Daemon, Need, NodeConfig, PATIENCE, Publisher, Said, Subscriber};

use super::super::load;
use super::Tally;

const DATABASE: &str = "slipstream.db";
const WAL: &str = "slipstream.db-wal";

/// Is sent when the files are gone.
const LATE: &str = r#"{"type":"SK","messageId":"late","key":"k","value":1}"#;

/// What happens to the files in a directory, and what does it.
type Happening = (&'static str, fn(&Path));

const HAPPENINGS: [Happening; 9] = [
    ("database removed", |data| remove(data, DATABASE)),
    ("log removed", |data| remove(data, WAL)),
    ("both removed", |data| [DATABASE, WAL].map(|name| remove(data, name)).into_iter().collect()),
    ("database replaced", |data| replace(data, DATABASE)),
    ("log replaced", |data| replace(data, WAL)),
    ("database cut", |data| cut(data, DATABASE)),
    ("log cut", |data| cut(data, WAL)),
    ("directory moved", |data| {
        fs::rename(data, data.with_extension("old")).expect("it can be moved");
    }),
    ("directory made anew", |data| {
        fs::remove_dir_all(data).expect("it can be removed");
        fs::create_dir(data).expect("it can be made");
    }),
];

fn remove(data: &Path, name: &str) {
    fs::remove_file(data.join(name)).expect("a file can be removed");
}

fn replace(data: &Path, name: &str) {
    let copy = data.join("copy");
    fs::copy(data.join(name), &copy).expect("a file can be copied");
    fs::rename(copy, data.join(name)).expect("a file can be moved");
}

fn cut(data: &Path, name: &str) {
    let file = OpenOptions::new().write(true).open(data.join(name)).expect("it can be opened");
    file.set_len(4096).expect("a file can be cut");
}

/// It ends by itself while nothing happens, on the next message, and on SIGTERM: always with code
/// 3, and a message that is not durable is not acknowledged.
pub fn that_are_taken_away(binary: &str) {
    let mut tally = Tally::default();
    for (what, happen) in HAPPENINGS {
        for when in ["idle", "at work", "told to end"] {
            let mut node = Daemon::start(binary, NodeConfig::new("aws"));
            Publisher::publish_all(&node, "till", load("before", 50));
            let mut app = App::connect(&node, "client=pos&keys=");
            happen(&node.data_dir());
            match when {
                "at work" => app.try_send(LATE),
                "told to end" => node.ask_to_end(),
                _ => {}
            }
            names_the_file(what, node.ended(), &node);
            while let Said::Frame(frame) = app.next(PATIENCE) {
                assert_ne!(frame.kind, "ACK", "{what}: {frame:?}");
            }
            tally.count(when);
        }
    }
    tally.report("files that are taken away", HAPPENINGS.len());
}

/// A directory is made anew under a running node, and a second node starts there: the first ends
/// with code 3 and has acknowledged nothing since, the second keeps what it acknowledges.
pub fn made_anew_for_a_second_node(binary: &str) {
    let mut first = Daemon::start(binary, NodeConfig::new("aws"));
    let data = first.data_dir();
    Publisher::publish_all(&first, "till", load("before", 50));
    let mut app = App::connect(&first, "client=pos&keys=");
    fs::remove_dir_all(&data).expect("it can be removed");
    fs::create_dir(&data).expect("it can be made");
    let folder = data.to_str().expect("temporary folders have plain names");
    let config = NodeConfig::new("azure").text("node.data_dir", folder);
    let mut second = Daemon::start(binary, config);
    app.try_send(LATE);
    names_the_file("directory made anew", first.ended(), &first);
    while let Said::Frame(frame) = app.next(PATIENCE) {
        assert_ne!(frame.kind, "ACK", "{frame:?}");
    }
    let consumer = Subscriber::start(&second, "client=out");
    let published = Publisher::publish_all(&second, "till", load("after", 50));
    second.kill();
    second.run();
    consumer.wait_for("azure", published.ids().count(), PATIENCE);
}

fn names_the_file(what: &str, status: ExitStatus, node: &Daemon) {
    let log = node.log();
    let said = log.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(3), "{what}: {said}");
    assert!(said.contains(&format!("data/{DATABASE}")), "{what}: {said}");
}

/// A data directory on a mount that is read-only, empty or with a database: code 2, and it is named
/// with its owner and the user of the node.
pub fn on_a_read_only_mount(binary: &str) {
    if !Need::OwnMounts.is_met("a read-only mount") {
        return;
    }
    for is_new in [true, false] {
        let mut node = Daemon::prepare(binary, NodeConfig::new("aws"));
        let data = node.data_dir();
        if is_new {
            fs::create_dir(&data).expect("it can be made");
        } else {
            node.run();
            node.terminate();
        }
        let data = data.to_str().expect("temporary folders have plain names");
        let mounted =
            "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
        let through = ["unshare", "--mount", "sh", "-c", mounted, data];
        node.spawn_through(&through.map(str::to_owned));
        let status = node.ended();
        let log = node.log();
        let said = log.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(2), "new: {is_new}: {said}");
        for word in [data, "read-only", "belongs to", "runs as"] {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        node.run();
        App::connect(&node, "");
    }
}
