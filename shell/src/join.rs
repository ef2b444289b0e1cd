//! Two halves as one stream: what is read from, and what is written to. It says when bytes move.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::io::{AsyncRead, AsyncWrite};
use slipstream_core::socket::Motion;

/// Reads from the one and writes to the other.
#[derive(Debug)]
pub(crate) struct Join<R, W> {
    read: R,
    pub(crate) write: W,
    motion: Motion,
    /// There was no room for what was to be written.
    is_full: bool,
}

impl<R, W> Join<R, W> {
    /// Marks `motion` when bytes have come, and when some are taken after there was no room.
    pub(crate) fn new(read: R, write: W, motion: Motion) -> Self {
        Self { read, write, motion, is_full: false }
    }

    fn note_written(&mut self, written: &Poll<io::Result<usize>>) {
        if written.is_ready() && self.is_full {
            self.motion.mark();
        }
        self.is_full = written.is_pending();
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for Join<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.read).poll_read(cx, buffer);
        if let Poll::Ready(Ok(1..)) = read {
            self.motion.mark();
        }
        read
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for Join<R, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.write).poll_write(cx, buffer);
        self.note_written(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_close(cx)
    }
}
