//! `simulate`: runs seeds of the deterministic simulator and says what they have seen.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A run allocates and frees all the time, and that of the system takes a tenth of it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    slipstream_tests::simulator::command::main()
}
