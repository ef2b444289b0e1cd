//! `simulate`: runs seeds of the deterministic simulator and says what they have seen.

use std::process::ExitCode;

fn main() -> ExitCode {
    slipstream_tests::simulator::command::main()
}
