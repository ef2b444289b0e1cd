//! What is fuzzed: one plain function for each target, bytes in, a panic if something is wrong.
//!
//! libFuzzer calls them from `fuzz_targets/`, and `tests/corpus.rs` replays the committed corpora
//! through them on stable. A target says in its module what must hold; that it does not panic and
//! does not allocate without bound is said once, here, for all of them.
//!
//! ```text
//! cargo +nightly fuzz run wire                          # fuzz one target
//! cargo +nightly fuzz run wire artifacts/wire/crash-1   # reproduce what was found
//! cargo run --no-default-features --example seeds       # write the first corpora again
//! ```
#![forbid(unsafe_code)]

mod config;
mod hello;
mod inputs;
mod json;
mod store_row;
mod wire;
mod world;

pub use config::config;
pub use hello::hello;
pub use inputs::inputs;
pub use json::json;
pub use store_row::store_row;
pub use wire::wire;
