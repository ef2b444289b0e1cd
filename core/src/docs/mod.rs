//! The ideas behind the protocol, a page each. Each page begins with a diagram.
//!
//! The promises P1 to P14 that the pages refer to are listed in `ARCHITECTURE.md`. Why a rule is as
//! it is stands in the decision records, `docs/src/decisions`.

#[doc = include_str!("clock.md")]
pub mod clock {}

#[doc = include_str!("conflation.md")]
pub mod conflation {}

#[doc = include_str!("digests.md")]
pub mod digests {}

#[doc = include_str!("group_copies.md")]
pub mod group_copies {}

#[doc = include_str!("lazy_push.md")]
pub mod lazy_push {}

#[doc = include_str!("log_and_cursors.md")]
pub mod log_and_cursors {}

#[doc = include_str!("retention.md")]
pub mod retention {}

#[doc = include_str!("rollback.md")]
pub mod rollback {}
