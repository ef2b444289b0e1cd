//! Replays the committed corpora through the targets, without libFuzzer.

use std::fs;
use std::path::Path;

/// Bytes that the corpus of one target may take.
const MAX_CORPUS_BYTES: u64 = 1 << 20;

/// Runs a target over its corpus. What fails is printed by name.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("an entry can be read").path())
        .collect();
    files.sort();
    assert!(files.len() >= 5, "{} files are no corpus", files.len());
    let mut bytes = 0;
    for file in files {
        let input = fs::read(&file).expect("a file can be read");
        bytes += input.len() as u64;
        let run = std::panic::catch_unwind(|| target(&input));
        assert!(run.is_ok(), "{} fails, see above", file.display());
    }
    assert!(bytes < MAX_CORPUS_BYTES, "{bytes} bytes: minimise the corpus with cargo fuzz cmin");
    target(&[]);
}

#[test]
fn binary_frames_are_taken_apart_and_put_together() {
    replay("wire", slipstream_fuzz::wire);
}

#[test]
fn text_frames_are_understood_or_refused() {
    replay("json", slipstream_fuzz::json);
}

#[test]
fn a_node_receives_any_hello() {
    replay("hello", slipstream_fuzz::hello);
}

#[test]
fn a_configuration_is_understood_or_refused() {
    replay("config", slipstream_fuzz::config);
}

#[test]
fn a_node_keeps_its_promises_whatever_comes() {
    replay("inputs", slipstream_fuzz::inputs);
}

#[test]
fn what_a_file_holds_is_read_or_refused() {
    replay("store_row", slipstream_fuzz::store_row);
}
