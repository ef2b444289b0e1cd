//! Connections to the shell's own code.

#[path = "../../tests/shells/connections.rs"]
mod connections;

/// What the connections run on.
mod runtime {
    pub(super) use smol::io::{AsyncReadExt, AsyncWriteExt};
    pub(super) use smol::net::{TcpListener, TcpStream};

    pub(super) use crate::runtime::Smol as Runtime;

    pub(super) fn run(test: impl Future<Output = ()>) {
        smol::block_on(test);
    }
}
