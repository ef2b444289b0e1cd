//! Connections to the shell's own code.

#[path = "../../tests/shells/connections.rs"]
mod connections;

/// What the connections run on.
mod runtime {
    pub(super) use tokio::io::{AsyncReadExt, AsyncWriteExt};
    pub(super) use tokio::net::{TcpListener, TcpStream};

    pub(super) use crate::runtime::Tokio as Runtime;

    pub(super) fn run(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(test);
    }
}
