//! What an application asks to read, and what it is answered (P6).
//!
//! Text and binary clients meet here, as they do in [`crate::wire::draft`]. What stays true: the
//! answer is the newest value among the tag sets of the key that match the application, and a key
//! whose newest write is a delete has none.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::config::Limits;
use crate::types::refusal::{Code, Refusal};
use crate::wire;
use crate::wire::draft::{check_id, check_key, refusal};
use crate::wire::message::Kind;

/// A question for the converged value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest<'a> {
    /// The kind that it is expected to have; `None`: whichever it has.
    pub kind: Option<Kind>,
    /// `messageId`, for the answer.
    pub id: Option<Cow<'a, str>>,
    /// The key.
    pub key: Cow<'a, str>,
}

impl<'a> ReadRequest<'a> {
    /// The kind that a frame of this type asks for.
    pub fn kind_of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| Self::name_of(*kind) == Some(name))
    }

    /// The type of the frame that asks for this kind; `None`: it is not read.
    pub const fn name_of(kind: Kind) -> Option<&'static str> {
        match kind {
            Kind::Sk => Some("GK"),
            Kind::Sa => Some("GA"),
            Kind::Sw => Some("GW"),
            Kind::Cmd | Kind::Dk => None,
        }
    }

    /// Takes what a binary client asks.
    ///
    /// # Errors
    /// A [`Refusal`] with the same codes and paths as for the JSON frame that says the same.
    pub fn from_wire(read: &wire::Read<'a>, limits: &Limits) -> Result<Self, Refusal> {
        let id = Some(read.id).filter(|id| !id.is_empty());
        if let Some(id) = id {
            check_id(id)?;
        }
        let read =
            Self { kind: read.kind, id: id.map(Cow::Borrowed), key: Cow::Borrowed(read.key) };
        let checked = match read.kind.map(Self::name_of) {
            None | Some(Some(_)) => read.check(limits),
            Some(None) => {
                let message = "only SK, SA and SW are read";
                Err(refusal(Code::UnknownType, "$.type", message))
            }
        };
        match checked {
            Ok(()) => Ok(read),
            Err(refusal) => Err(Refusal { re: id.map(String::from), ..refusal }),
        }
    }

    /// Checks the key; the form of the id was seen to.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        check_key(&self.key, limits)
    }

    /// The read without its frame.
    pub fn into_owned(self) -> ReadRequest<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        ReadRequest { kind: self.kind, id: self.id.map(owned), key: owned(self.key) }
    }
}
