//! What smol lacks, as small as the shell needs it. Nothing here knows what it is used for.

mod channel;
mod join;
mod select;
mod wait;

pub(crate) use channel::{Receiver, Sender, bounded};
pub(crate) use join::Join;
pub(crate) use select::select;
pub(crate) use wait::{Alarm, sleep, spawn, timeout, when};
