//! The `slipstream` binary; all of it is in [`slipstream_tokio::daemon`].

/// Buffers are made on one thread and often freed on another, in every size up to a batch; the
/// system's allocator keeps many times of what is in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    slipstream_tokio::daemon::main()
}
