//! Names of the fields of an envelope, and what is said of each.
//!
//! What stays true: a name is known however it is escaped, and one that is not is refused with the
//! nearest among those that the type of the frame takes, unless it begins with `x-`: a typo must
//! not turn a message for some into one for everybody.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::types::ids::is_name;
use crate::types::nearest::nearest;
use crate::types::refusal::{Code, Refusal};
use crate::wire::draft::refusal;
use crate::wire::scan::{self, BadString};

/// How the names of fields begin that are nobody's affair but the application's.
const FREE: &str = "x-";

/// A field that means something in some type of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    MessageId,
    Key,
    Value,
    TargetedTags,
    TtlMs,
    DeliveryId,
    UpTo,
    Action,
    Reason,
    // A node stamps what follows. Listed so that a delivery can be published as it came.
    OriginInstanceId,
    SourceInstanceId,
    MessagePath,
    ClusterGroupId,
    Version,
    Redelivery,
    Conflated,
}

/// What messages take.
pub(super) const OF_MESSAGES: &[Field] =
    &[Field::Type, Field::MessageId, Field::Key, Field::Value, Field::TargetedTags, Field::TtlMs];

/// What ACK takes, and NACK.
pub(super) const OF_SETTLEMENTS: &[Field] =
    &[Field::Type, Field::DeliveryId, Field::MessageId, Field::UpTo, Field::Action, Field::Reason];

/// What reads take.
pub(super) const OF_READS: &[Field] = &[Field::Type, Field::MessageId, Field::Key];

impl Field {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 17] = [
        Self::Type,
        Self::MessageId,
        Self::Key,
        Self::Value,
        Self::TargetedTags,
        Self::TtlMs,
        Self::DeliveryId,
        Self::UpTo,
        Self::Action,
        Self::Reason,
        Self::OriginInstanceId,
        Self::SourceInstanceId,
        Self::MessagePath,
        Self::ClusterGroupId,
        Self::Version,
        Self::Redelivery,
        Self::Conflated,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::MessageId => "messageId",
            Self::Key => "key",
            Self::Value => "value",
            Self::TargetedTags => "targetedTags",
            Self::TtlMs => "ttlMs",
            Self::DeliveryId => "deliveryId",
            Self::UpTo => "upTo",
            Self::Action => "action",
            Self::Reason => "reason",
            Self::OriginInstanceId => "originInstanceId",
            Self::SourceInstanceId => "sourceInstanceId",
            Self::MessagePath => "messagePath",
            Self::ClusterGroupId => "clusterGroupId",
            Self::Version => "version",
            Self::Redelivery => "redelivery",
            Self::Conflated => "conflated",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.as_str() == name)
    }

    pub(super) fn refusal(self, code: Code, message: impl Into<String>) -> Refusal {
        refusal(code, &format!("$.{}", self.as_str()), message)
    }

    pub(super) fn missing(self) -> Refusal {
        self.refusal(Code::MissingField, format!("there is no {}", self.as_str()))
    }

    pub(super) fn invalid(self, expected: &str) -> Refusal {
        self.refusal(Code::InvalidField, format!("{} is not {expected}", self.as_str()))
    }

    pub(super) fn string(self, raw: &str) -> Result<Cow<'_, str>, Refusal> {
        scan::string(raw).map_err(|bad| match bad {
            BadString::Other => self.invalid("a string"),
            BadString::LoneSurrogate => {
                let message = format!("{} holds half of a surrogate pair", self.as_str());
                self.refusal(Code::InvalidJson, message)
            }
        })
    }
}

/// Name of a field, whichever way it is escaped.
pub(super) enum FieldName<'a> {
    Known(Field),
    Unknown(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for FieldName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = FieldName<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<FieldName<'de>, E> {
        Ok(Field::from_name(name).map_or(FieldName::Unknown(Cow::Borrowed(name)), FieldName::Known))
    }

    fn visit_str<E>(self, name: &str) -> Result<FieldName<'de>, E> {
        let unknown = || FieldName::Unknown(Cow::Owned(String::from(name)));
        Ok(Field::from_name(name).map_or_else(unknown, FieldName::Known))
    }
}

/// Names of the fields that are not known.
#[derive(Default)]
pub(super) struct Unknown<'a> {
    /// The first that is to be refused.
    first: Option<Cow<'a, str>>,
    /// All of them, as often as they are there.
    names: Vec<Cow<'a, str>>,
}

impl<'a> Unknown<'a> {
    pub(super) fn push(&mut self, name: Cow<'a, str>) {
        if self.first.is_none() && !name.starts_with(FREE) {
            self.first = Some(name.clone());
        }
        self.names.push(name);
    }

    /// Whether one of them is there twice.
    pub(super) fn repeat(&mut self) -> bool {
        self.names.sort_unstable();
        self.names.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Refuses the first that does not begin with `x-`, in a frame that takes these fields.
    pub(super) fn refuse(&self, takes: &[Field]) -> Result<(), Refusal> {
        let Some(name) = &self.first else { return Ok(()) };
        if !is_name(name) {
            let message = "a field is unknown; names of your own begin with x-";
            return Err(refusal(Code::InvalidField, "$", message));
        }
        let near = nearest(name, takes.iter().map(|field| field.as_str()));
        let message = format!(
            "there is no field {name}; the nearest is {near}, and names of your own begin with x-"
        );
        Err(refusal(Code::InvalidField, &format!("$.{name}"), message))
    }
}
