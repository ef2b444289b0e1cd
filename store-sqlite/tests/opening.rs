//! Who may open the file, and what is refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use rusqlite::Connection;
use slipstream_core::config::Durability;
use slipstream_core::store::Store as _;
use slipstream_core::time::WallMs;
use slipstream_store_sqlite::{OpenError, Options};

const CHILD_DIRECTORY: &str = "SLIPSTREAM_TEST_DIRECTORY";

#[test]
fn a_second_open_in_the_same_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = Harness::open(directory.path());
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
    let file = directory.path().join("slipstream.db");
    assert!(refused.to_string().contains(file.to_str().unwrap()), "{refused}");

    drop(first);
    let mut second = Harness::open(directory.path());
    second.commit(batch(vec![state(1, "a", "1")]));
}

// keeps: one-process
#[test]
fn a_second_process_is_refused_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let child = || child(directory.path(), |_| {});
    let harness = Harness::open(directory.path());
    assert!(child().contains("slipstream.db is in use by another process"), "{}", child());
    drop(harness);
    assert!(child().contains("opened"), "{}", child());
    // The last one to open it was killed, so to speak: it is free again.
    Harness::open(directory.path());
}

/// What another process says that opens a store.
fn child(directory: &Path, change: impl Fn(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "opens_what_its_parent_says", "--nocapture"])
        .env(CHILD_DIRECTORY, directory);
    change(&mut command);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// The other process of the tests here; does nothing on its own.
#[test]
fn opens_what_its_parent_says() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    match Harness::with(options(directory.as_ref())) {
        Ok(_) => println!("opened"),
        Err(refused) => println!("{refused}"),
    }
}

#[test]
fn a_shell_that_has_the_file_open_is_named() {
    let directory = tempfile::tempdir().unwrap();
    Harness::open(directory.path()).store.close().unwrap();
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    shell.execute_batch("BEGIN; SELECT * FROM meta").unwrap();
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused:?}");
}

// keeps: files-in-place
#[test]
fn a_database_that_is_replaced_while_it_is_opened_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Harness::open(directory.path()).store.close().unwrap();
    let file = directory.path().join("slipstream.db");
    let (whole, next) = (std::fs::read(&file).unwrap(), directory.path().join("next"));
    let done = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::fs::write(&next, &whole).unwrap();
                std::fs::rename(&next, &file).unwrap();
            }
        });
        // Where the opening is quicker than the thread, or meets what is half done, it says so.
        let tries = (0..500).filter_map(|_| Harness::with(options(directory.path())).err());
        let refused = tries.into_iter().find(|it| matches!(it, OpenError::Replaced { .. }));
        done.store(true, Ordering::Relaxed);
        refused
    });
    let refused = refused.expect("one of them is noticed").to_string();
    assert!(refused.contains("slipstream.db was replaced while it was opened"), "{refused}");

    // Nothing was lost of what lies there, and it opens when nobody touches it.
    Harness::open(directory.path());
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slipstream.db");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    let before = std::fs::read(&file).unwrap();
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
    assert_eq!(std::fs::read(&file).unwrap(), before);

    std::fs::write(&file, "no database at all, but long enough to look like one".repeat(40))
        .unwrap();
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
}

#[test]
fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Harness::open(directory.path()).store.close().unwrap();
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    shell.pragma_update(None, "user_version", 6).unwrap();
    drop(shell);
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Newer { found: 6, known: 5, .. }), "{refused:?}");
}

// keeps: old-stores-open
#[test]
fn an_older_schema_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![of_group(1, "a")]));
    harness.store.close().unwrap();
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    shell.execute_batch("DROP TABLE copies; PRAGMA user_version = 3").unwrap();
    drop(shell);
    let mut harness = Harness::open(directory.path());
    assert_eq!(harness.positions(), [1]);
    harness.commit(trim(1, 0));
    harness.store.close().unwrap();
    assert_eq!(Harness::open(directory.path()).recovered.copies.len(), 1);
}

#[test]
fn an_event_of_an_older_schema_ends_as_its_origin_said() {
    let directory = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(directory.path());
    harness.commit(batch(vec![event(1, "a", "1", 500)]));
    harness.store.close().unwrap();
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    shell.pragma_update(None, "user_version", 4).unwrap();
    drop(shell);
    let mut harness = Harness::open(directory.path());
    assert_eq!(harness.rows()[0].row.ends.0, 500);
    harness.commit(batch(vec![event(2, "a", "1", 500).ending(WallMs(700))]));
    harness.store.close().unwrap();
    let mut harness = Harness::open(directory.path());
    assert_eq!(harness.rows()[1].row.ends.0, 700);
    assert!(harness.damaged.is_empty());
    harness.store.close().unwrap();
    // Nobody gives an event another end unnoticed.
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    shell.execute("UPDATE log SET expires = expires + 1", []).unwrap();
    drop(shell);
    assert!(Harness::open(directory.path()).positions().is_empty());
}

#[test]
fn a_schema_that_was_never_released_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    Harness::open(directory.path()).store.close().unwrap();
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    shell.pragma_update(None, "user_version", 2).unwrap();
    drop(shell);
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Older { found: 2, .. }), "{refused:?}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let below = directory.path().join("file/data");
    let refused = Harness::with(options(&below)).err().unwrap();
    assert!(matches!(refused, OpenError::Directory { .. }), "{refused:?}");
    assert!(refused.to_string().contains("file/data"), "{refused}");
}

// keeps: commit-synced
#[test]
fn both_durabilities_open_and_a_person_can_read_the_file() {
    let directory = tempfile::tempdir().unwrap();
    for (position, durability) in [(1, Durability::Full), (2, Durability::Normal)] {
        let options = Options::new(directory.path().to_path_buf(), durability, STORE);
        let mut harness = Harness::with(options).unwrap();
        harness.commit(batch(vec![state(position, "order:1", "{\"amount\":1.10}")]));
    }
    let shell = Connection::open(directory.path().join("slipstream.db")).unwrap();
    let sql = "SELECT key || ' ' || value FROM log WHERE position = 2";
    let text: String = shell.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(text, "order:1 {\"amount\":1.10}");
}

// keeps: store-owner
#[cfg(unix)]
#[test]
fn nobody_else_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("above/data");
    Harness::open(&directory).commit(batch(vec![state(1, "a", "1")]));
    assert_eq!(mode(&directory), 0o700);
    let files = ["slipstream.db", "slipstream.db-wal"].map(|name| directory.join(name));
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600; 2]);
    // Also those of an earlier version.
    for file in &files {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    Harness::open(&directory).commit(batch(vec![state(2, "a", "2")]));
    assert_eq!(files.each_ref().map(|file| mode(file)), [0o600; 2]);
}

// keeps: store-owner
#[test]
fn a_link_to_nowhere_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("slipstream.db");
    std::os::unix::fs::symlink("/nowhere/slipstream.db", &file).unwrap();
    let refused = Harness::with(options(directory.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Dangling { .. }), "{refused:?}");
    let says = refused.to_string();
    assert!(says.contains(file.to_str().unwrap()) && says.contains("/nowhere"), "{says}");
}

/// As another user where this one may do everything.
// keeps: store-owner
#[cfg(target_os = "linux")]
#[test]
fn what_may_not_be_used_is_named_with_its_owner() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;
    let above = tempfile::tempdir_in("/tmp").unwrap();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(above.path(), 0o755);
    let is_root = std::fs::metadata(above.path()).unwrap().uid() == 0;
    let said = |directory: &Path| {
        child(directory, |command| {
            if is_root {
                command.uid(65_534);
            }
        })
    };
    let cases: [(&str, &str, u32); 4] = [
        ("database", "slipstream.db", 0o444),
        ("log", "slipstream.db-wal", 0o400),
        ("dir", "", 0o555),
        ("new", "data", 0),
    ];
    for (case, file, mode) in cases {
        let directory = above.path().join(case);
        std::fs::create_dir(&directory).unwrap();
        if file.starts_with("slipstream") {
            Harness::open(&directory).commit(batch(vec![state(1, "a", "1")]));
            set(&directory, 0o777);
            for name in ["slipstream.db", "slipstream.db-wal"] {
                set(&directory.join(name), if name == file { mode } else { 0o666 });
            }
        } else {
            set(&directory, 0o555);
        }
        let below = if case == "new" { directory.join("data") } else { directory.clone() };
        let says = said(&below);
        let named = if case == "new" { directory.clone() } else { directory.join(file) };
        let named = named.to_str().unwrap().trim_end_matches('/');
        for part in [named, "may not be read and written", "belongs to", "runs as"] {
            assert!(says.contains(part), "{case}: {says}");
        }
        set(&directory, 0o755);
    }
}
