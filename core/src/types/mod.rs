//! Names, numbers and times as data: what every other layer speaks in.
//!
//! Owns identifiers, time as the shell tells it, the hybrid logical clock, tags, rates, refusals
//! and close codes. Knows no message, no store and no link.

pub mod clock;
pub mod close;
pub mod ids;
pub mod kind;
pub mod nearest;
pub mod print;
pub mod protocol;
pub mod rate;
pub mod refusal;
pub mod tags;
pub mod time;
pub mod timers;
pub mod value;
