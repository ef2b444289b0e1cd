//! The `slipstream` binary; all of it is in [`slipstream_tokio::daemon`].

fn main() -> std::process::ExitCode {
    slipstream_tokio::daemon::main()
}
