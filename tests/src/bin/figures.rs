//! `figures`: measures what the mesh costs and how late messages are when something fails.

use std::process::ExitCode;

fn main() -> ExitCode {
    slipstream_tests::figures::command::main()
}
