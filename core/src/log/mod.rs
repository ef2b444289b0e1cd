//! What a node knows of messages: the log in memory, and what is remembered of its rows.
//!
//! Owns the batch that grows, the tail, and the knowledge that is written down with a batch: what
//! was seen, newest values, receipts, copies within groups, starts. Knows no session: who is handed
//! a row, and when, is not decided here.

pub mod copies;
pub mod dead_letter;
pub mod lifetime;
pub mod newest;
pub mod receipts;
pub mod seen;
pub mod starts;
pub mod tail;
pub mod undelivered;
