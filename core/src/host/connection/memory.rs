//! A connection within the process: frames go from one task to another as they are.
//!
//! It keeps to what holds between machines: what is under way is bounded, and a frame above the
//! limit ends the connection with 4413.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use crate::host::runtime::Runtime;
use crate::host::shared::{Shared, Wakes, keep};
use crate::host::socket::{Frames, Motion, Reader, Socket, Writer};
use crate::io::{End, Frame, Protocol};

/// What may be under way in one direction, by [`Frame::cost`]; a last frame comes on top.
const UNDER_WAY: usize = 64 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub struct Memory {
    reader: MemoryReader,
    writer: MemoryWriter,
}

impl Memory {
    /// Both ends of one whose frames have at most `largest` bytes.
    pub fn pair<R: Runtime>(largest: usize) -> (Self, Self) {
        let (there, back) = (R::share(Pipe::default()), R::share(Pipe::default()));
        let end = |comes, goes| Self {
            reader: MemoryReader { pipe: comes, largest },
            writer: MemoryWriter { pipe: goes },
        };
        (end(back.clone(), there.clone()), end(there, back))
    }
}

impl Socket for Memory {
    type Reader = MemoryReader;
    type Writer = MemoryWriter;

    async fn split(self, _: Protocol) -> (MemoryReader, MemoryWriter) {
        (self.reader, self.writer)
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    frames: VecDeque<Frame>,
    /// Of the frames.
    cost: usize,
    /// Nothing is sent any more; what the reader hears of that, behind the frames.
    end: Option<End>,
    /// Nobody reads any more.
    is_deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    woken: Vec<Waker>,
}

impl Wakes for Pipe {
    fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }
}

impl Pipe {
    /// Takes the frame as soon as there is room.
    fn poll_send(
        &mut self,
        frame: &mut Option<Frame>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        if self.is_deaf {
            let gone = String::from("cannot send: the other side is gone");
            return Poll::Ready(Err(End::silent(gone)));
        }
        if self.cost >= UNDER_WAY {
            keep(&mut self.writer, cx.waker(), &mut self.woken);
            return Poll::Pending;
        }
        if let Some(frame) = frame.take() {
            self.cost += frame.cost();
            self.frames.push_back(frame);
        }
        self.woken.extend(self.reader.take());
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.woken.extend(self.reader.take());
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        if let Some(frame) = self.frames.pop_front() {
            self.cost -= frame.cost();
            self.woken.extend(self.writer.take());
            return Poll::Ready(Ok(frame));
        }
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        keep(&mut self.reader, cx.waker(), &mut self.woken);
        Poll::Pending
    }
}

/// The half that reads.
#[derive(Debug)]
pub struct MemoryReader {
    pipe: Shared<Pipe>,
    largest: usize,
}

impl Reader for MemoryReader {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, End>> {
        let next = self.pipe.with(|pipe| pipe.poll_next(cx));
        next.map(|next| match next? {
            Frame::Text(bytes) | Frame::Binary(bytes) if bytes.len() > self.largest => {
                Err(End::too_large(bytes.len(), self.largest))
            }
            frame => Ok(frame),
        })
    }

    fn motion(&self) -> Motion {
        // Frames come as a whole.
        Motion::default()
    }

    async fn discard(&mut self) -> bool {
        self.pipe.wait(Pipe::poll_next).await.is_ok()
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.pipe.with(|pipe| {
            pipe.is_deaf = true;
            pipe.woken.extend(pipe.writer.take());
        });
    }
}

/// The half that writes.
#[derive(Debug)]
pub struct MemoryWriter {
    pipe: Shared<Pipe>,
}

impl Writer for MemoryWriter {
    async fn send(&mut self, mut frames: impl Frames) -> Result<(), End> {
        while let Some(frame) = frames.next() {
            let mut frame = Some(frame);
            self.pipe.wait(|pipe, cx| pipe.poll_send(&mut frame, cx)).await?;
        }
        Ok(())
    }

    fn motion(&self) -> Motion {
        Motion::default()
    }

    async fn farewell(&mut self, end: &End) -> Result<(), End> {
        let said = match end.close_frame() {
            Some((code, reason)) => End::by_peer(code, reason.into()),
            None => End::cut(),
        };
        self.pipe.with(|pipe| pipe.end(said));
        Ok(())
    }

    async fn renewed(self) -> Self {
        self
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        self.pipe.with(|pipe| pipe.end(End::cut()));
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec;

    use bytes::Bytes;

    use super::*;
    use crate::host::runtime::by_hand::ByHand;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn frame(bytes: usize) -> Frame {
        Frame::Binary(vec![0; bytes].into())
    }

    // keeps: no-hold-up
    #[test]
    fn what_is_under_way_is_bounded_and_arrives_in_order() {
        let (here, there) = Memory::pair::<ByHand>(2 * UNDER_WAY);
        let (mut writer, mut reader) = (here.writer, there.reader);
        let sizes = [1, UNDER_WAY, 2, 2 * UNDER_WAY, 3];
        let mut sending = Box::pin(writer.send(sizes.into_iter().map(frame)));
        let mut received = Vec::new();
        let mut sent = Poll::Pending;
        while received.len() < sizes.len() {
            if sent.is_pending() {
                sent = sending.as_mut().poll(&mut cx());
            }
            assert!(reader.pipe.with(|pipe| pipe.cost) < UNDER_WAY + frame(2 * UNDER_WAY).cost());
            match reader.poll_next(&mut cx()) {
                Poll::Ready(next) => received.push(next.expect("nothing has ended")),
                Poll::Pending => panic!("nothing comes any more"),
            }
        }
        assert_eq!(sent, Poll::Ready(Ok(())));
        assert_eq!(received, sizes.map(frame));
    }

    #[test]
    fn a_frame_above_the_limit_ends_it_and_one_at_the_limit_passes() {
        let (here, there) = Memory::pair::<ByHand>(100);
        let (mut writer, mut reader) = (here.writer, there.reader);
        let mut sending = Box::pin(writer.send([frame(100), frame(101)].into_iter()));
        assert!(sending.as_mut().poll(&mut cx()).is_ready());
        assert_eq!(reader.poll_next(&mut cx()), Poll::Ready(Ok(frame(100))));
        assert_eq!(reader.poll_next(&mut cx()), Poll::Ready(Err(End::too_large(101, 100))));
    }

    #[test]
    fn either_side_hears_that_the_other_is_gone() {
        let (here, there) = Memory::pair::<ByHand>(100);
        let (mut reader, mut writer) = (there.reader, there.writer);
        let last = Frame::Ping(Bytes::new());
        drop({
            let Memory { reader, mut writer } = here;
            assert!(
                Box::pin(writer.send([last.clone()].into_iter()))
                    .as_mut()
                    .poll(&mut cx())
                    .is_ready()
            );
            (reader, writer)
        });
        assert_eq!(reader.poll_next(&mut cx()), Poll::Ready(Ok(last.clone())));
        assert_eq!(reader.poll_next(&mut cx()), Poll::Ready(Err(End::cut())));
        let sent = Box::pin(writer.send([last].into_iter())).as_mut().poll(&mut cx());
        assert!(matches!(sent, Poll::Ready(Err(End { close: None, by_peer: false, .. }))));
    }
}
