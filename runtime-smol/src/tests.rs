//! Connections to the shell's own code.

#[path = "../../tests/shells/connections.rs"]
mod connections;

/// What the connections run on.
mod runtime {
    pub(super) use smol::io::{AsyncReadExt, AsyncWriteExt};
    pub(super) use smol::net::{TcpListener, TcpStream};

    pub(super) use crate::stand_ins::{Receiver, Sender, bounded as channel, spawn, timeout};

    pub(super) fn run(test: impl Future<Output = ()>) {
        smol::block_on(test);
    }
}
