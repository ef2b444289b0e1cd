//! Connections of the admin client: to whichever address of the endpoint answers first.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use slipstream_core::happy_eyeballs::connect_first;
use slipstream_core::runtime::Runtime;
use tokio::runtime::Builder;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use crate::runtime::Tokio;

/// For a connection, whatever the time for the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens connections as the nodes do.
#[derive(Debug)]
pub(super) struct Racing;

impl Connector for Racing {
    type Out = Connected;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connected>, Error> {
        let limit = details.timeout.not_zero().map_or(CONNECT_TIMEOUT, |left| *left);
        let stream = open(details.addrs.to_vec(), limit.min(CONNECT_TIMEOUT))?;
        let (input, output) =
            (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Connected { stream, buffers: LazyBuffers::new(input, output) }))
    }
}

/// Waits on a thread of its own: the caller's may be one of a runtime.
fn open(addresses: Vec<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
    let connecting = std::thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stream = runtime.block_on(async {
            let until = Tokio::now().instant + limit;
            let connect = tokio::net::TcpStream::connect::<SocketAddr>;
            connect_first::<Tokio, _, _, _>(addresses, until, connect).await
        });
        let stream = stream.map_err(io::Error::other)?.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    });
    connecting.join().map_err(|_| io::Error::other("connecting panicked"))?
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connected {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Connected {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output).map_err(|error| told(error, timeout.reason))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input).map_err(|error| told(error, timeout.reason))?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Each request has a connection of its own.
    fn is_open(&mut self) -> bool {
        false
    }
}

fn told(error: io::Error, reason: Timeout) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Error::Timeout(reason),
        _ => error.into(),
    }
}
