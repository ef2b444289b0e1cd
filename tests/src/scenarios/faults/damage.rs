//! Files that are not what was written: each gives its stated error, and nothing damaged is ever
//! delivered as good (P2, P3).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{
    App, Daemon, LONG, Mesh, NodeConfig, Published, Publisher, Seed, Subscriber, each_exactly_once,
    until,
};

use super::super::{load, nodes};
use super::Tally;

const PAGE: usize = 4096;

fn database(node: &Daemon) -> PathBuf {
    node.data_dir().join("slipstream.db")
}

/// A file from a newer program, of another program, or with a broken head: the node ends with the
/// stated code, names the file, and leaves it as it is.
pub fn a_file_that_is_not_ours(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let published = Publisher::publish_all(&node, "till", load("aws", 200));
    assert_eq!(node.terminate().code(), Some(0));
    let good = fs::read(database(&node)).expect("the database is there");
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    // Where things are: https://www.sqlite.org/fileformat.html, "The Database Header".
    let not_ours = "is not a database of Slipstream";
    let cases: [(&str, Vec<u8>, i32, &str); 8] = [
        ("a newer schema", with(60, &99_u32.to_be_bytes()), 2, "schema version 99"),
        ("another program's", with(68, b"ABCD"), 2, not_ours),
        ("no schema version", with(60, &[0; 4]), 2, not_ours),
        ("no SQLite", b"a letter to the operator".repeat(500), 2, not_ours),
        ("a broken magic", with(3, &[0xff]), 2, not_ours),
        ("a broken page size", with(16, &[0x13, 0x37]), 2, not_ours),
        ("a schema of noise", with(110, &[0xa5; 3_000]), 3, "slipstream.db"),
        ("cut off", good[..PAGE].to_vec(), 3, "slipstream.db"),
    ];
    let mut tally = Tally::default();
    for (what, bytes, code, message) in cases {
        fs::write(database(&node), &bytes).expect("the database can be written");
        node.spawn();
        let status = node.ended();
        let log = node.log();
        let said = log.lines().last().unwrap_or_default();
        assert_eq!(status.code(), Some(code), "{what}: {said}");
        assert!(said.contains(message), "{what}: {said}");
        let after = fs::read(database(&node)).expect("the database is there");
        assert!(after == bytes, "{what}: the file was changed");
        tally.count(what);
    }
    fs::write(database(&node), &good).expect("the database can be written");
    let _ = fs::remove_file(database(&node).with_extension("db-wal"));
    node.run();
    let auditor = Subscriber::start(&node, "client=auditor");
    each_exactly_once("the auditor", &auditor.stop(), published.ids());
    tally.report("files that are not ours", 1);
}

/// A database under another `node.id`, and one that was not stopped and has lost its log: each ends
/// with its code and says how to go on, which then works, once and for good.
pub fn a_database_that_needs_a_word(binary: &str) {
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let published = Publisher::publish_all(&node, "till", load("aws", 50));
    assert_eq!(node.terminate().code(), Some(0));
    node.config = node.config.clone().text("node.id", "gcp");
    node.write_config();
    needs(&mut node, 2, "--rename-node", &["of node aws", "node.id is gcp"]);

    let wal = database(&node).with_extension("db-wal");
    assert!(!Publisher::publish_all(&node, "till", load("lost", 1)).receipts.is_empty());
    node.kill();
    fs::remove_file(&wal).expect("a file can be removed");
    needs(&mut node, 3, "--accept-missing-log", &["slipstream.db-wal is missing"]);
    let auditor = Subscriber::start(&node, "client=auditor");
    each_exactly_once("the auditor", &auditor.stop(), published.ids());
}

/// It does not start but with this argument, once.
fn needs(node: &mut Daemon, code: i32, arg: &str, said: &[&str]) {
    node.spawn();
    let (status, log) = (node.ended(), node.log());
    let last = log.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(code), "{last}");
    assert!(said.iter().all(|said| last.contains(said)) && last.contains(arg), "{last}");
    node.args = vec![arg.to_owned()];
    node.run();
    node.args.clear();
    node.terminate();
    node.run();
}

/// One byte of the database, or of its log, is another one. Whatever the node says then, it hands
/// over nothing but what was published.
pub fn a_byte_that_is_wrong(binary: &str) {
    const FLIPS: usize = 24;
    let mut seed = Seed::of("bytes that are wrong");
    let mut tally = Tally::default();
    let mut node = Daemon::start(binary, NodeConfig::new("aws"));
    let mut made: HashMap<_, _> = HashMap::new();
    // One message a commit, so that damage is followed by commits that are sound.
    for name in ["first", "second"] {
        made.extend(load(name, 100).map(|one| (one.id().to_owned(), one.value().to_owned())));
        let published = Publisher::with_window(&node, "till", 1, load(name, 100)).finish();
        assert_eq!(published.receipts.len(), 100);
        if name == "first" {
            // From here on the database holds the first ones, its log only the second.
            assert_eq!(node.terminate().code(), Some(0));
            node.run();
        }
    }
    node.kill();
    let good = copy_of(&node.data_dir());
    for file in ["slipstream.db", "slipstream.db-wal"] {
        for _ in 0..FLIPS {
            restore(&node.data_dir(), &good);
            let path = node.data_dir().join(file);
            let mut bytes = fs::read(&path).expect("the file is there");
            let at = seed.below(bytes.len());
            bytes[at] ^= 1 << seed.below(8);
            fs::write(&path, bytes).expect("the file can be written");
            let outcome = audit(&mut node, &made, &format!("{file} at {at}"));
            tally.count(&format!("{file} {outcome}"));
            node.kill();
        }
    }
    let all: usize = tally.struck.values().sum();
    assert_eq!(all, 2 * FLIPS);
    tally.report("bytes that are wrong", 1);
}

/// Starts the node and takes what it hands over: all of it must be as it was published.
fn audit(node: &mut Daemon, made: &HashMap<String, String>, what: &str) -> &'static str {
    let logged = node.log().len();
    node.spawn();
    if let Some(status) = node.started() {
        assert!(matches!(status.code(), Some(2 | 3)), "{what}: {status}: {}", node.log());
        return "refused at start";
    }
    let auditor = Subscriber::join(node, "client=auditor");
    let mut ended = false;
    until("an end or the replay", LONG, || {
        ended = node.exited().is_some();
        ended || auditor.is_synced()
    });
    if ended {
        let status = node.ended();
        assert_eq!(status.code(), Some(3), "{what}: {}", node.log());
    }
    let handed = auditor.stop();
    for one in &handed {
        assert_eq!(made.get(&one.id).map(String::as_str), Some(&*one.value), "{what}: {one:?}");
    }
    if ended {
        return "ended it";
    }
    if handed.len() == made.len() {
        return "changed nothing";
    }
    // Damage in the last commit looks like a power cut before it was acknowledged.
    let said = &node.log()[logged..];
    let last = handed.len() + 1 == made.len();
    assert!(last || said.contains(r#""level":"ERROR""#), "{what}: left out without a word: {said}");
    "left something out"
}

/// A node comes back with an older copy of its database, under a running mesh, and its operator
/// does what the runbook says. What others published is there again, no identity is used twice,
/// and the others lose nothing.
pub fn an_older_copy_comes_back(binary: &str) {
    let mut mesh = Mesh::line(binary, nodes(&["aws", "azure"]));
    let watcher = Subscriber::start(&mesh.nodes[0], "client=watch");
    let mut everything = Vec::new();
    let mut publish = |mesh: &Mesh, round: usize| -> Vec<Published> {
        let both = mesh.nodes.iter().map(|node| {
            let name = format!("{}-{round}", node.config.id);
            Publisher::publish_all(node, "till", load(&name, 200))
        });
        let both: Vec<_> = both.collect();
        everything.extend(both.iter().flat_map(|one| one.receipts.clone()));
        both
    };

    let first = publish(&mesh, 1);
    everywhere(&mesh, 400);
    assert_eq!(mesh.nodes[1].terminate().code(), Some(0));
    let backup = copy_of(&mesh.nodes[1].data_dir());
    mesh.nodes[1].run();
    let second = publish(&mesh, 2);
    everywhere(&mesh, 800);

    mesh.nodes[1].kill();
    restore(&mesh.nodes[1].data_dir(), &backup);
    until("azure to be forgotten", LONG, || {
        // It takes a moment until aws knows that azure is away.
        mesh.nodes[0].admin("DELETE", "/sessions/peer:azure").status / 100 == 2
    });
    mesh.nodes[1].run();
    let third = publish(&mesh, 3);
    assert!(third.iter().all(|one| one.duplicates == 0), "identities are new");

    watcher.wait_for("aws", everything.len(), LONG);
    let handed = watcher.stop();
    each_exactly_once("aws", &handed, everything.iter().map(|(id, _)| id.as_str()));
    let newest = |rounds: &[Published]| rounds[1].receipts.iter().map(|one| one.1.clone()).max();
    assert!(newest(&third) > newest(&second), "versions grow");
    // It gets back its own messages since the copy, too, though its neighbour had forgotten it.
    let owed = first.iter().chain(&second).chain(&third).flat_map(|one| one.ids());
    let owed: Vec<_> = owed.collect();
    let auditor = Subscriber::start(&mesh.nodes[1], "client=auditor");
    auditor.wait_for("azure", owed.len(), LONG);
    each_exactly_once("azure", &auditor.stop(), owed);
}

/// Waits until a newcomer is handed so many messages at every node.
fn everywhere(mesh: &Mesh, count: usize) {
    for node in &mesh.nodes {
        until(&format!("{count} messages at {}", node.config.id), LONG, || {
            App::connect(node, "replay=all").replay().len() == count
        });
    }
}

type Copy = Vec<(PathBuf, Vec<u8>)>;

/// All files of the folder of a node that does not run.
fn copy_of(folder: &Path) -> Copy {
    let entries = fs::read_dir(folder).expect("the folder is there").flatten();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("a file can be read");
        (path, bytes)
    };
    entries.map(|entry| read(entry.path())).collect()
}

fn restore(folder: &Path, copy: &Copy) {
    fs::remove_dir_all(folder).expect("the folder of a node that ended can go");
    fs::create_dir(folder).expect("a folder can be made");
    for (path, bytes) in copy {
        fs::write(path, bytes).expect("a file can be written");
    }
}
