//! Text frames of applications, taken apart into requests.
//!
//! The envelope is read field by field, each value as the slice of the frame that it is; what a
//! type needs is looked at afterwards, so that a field of a wrong type spoils no other. What stays
//! true: a value is never interpreted, a field that only another type takes is never looked at,
//! and a refusal carries the `messageId` wherever one can be read.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::field::{Field, FieldName, OF_MESSAGES, OF_READS, OF_SETTLEMENTS, Unknown};
use super::number::whole;
use super::settle::{SettleRequest, SettleTarget, reason_of};
use crate::config::Limits;
use crate::types::ids::{Position, is_name};
use crate::types::refusal::{Code, Refusal};
use crate::types::value::NO_VALUE;
use crate::wire::draft::{Draft, bad_tag, canonical_tags, check_id, too_deep};
use crate::wire::message::Kind;
use crate::wire::read::ReadRequest;
use crate::wire::scan;

/// What an application asks with one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonRequest<'a> {
    /// Publish this.
    Publish(Draft<'a>),
    /// Take note of what became of a delivery.
    Settle(SettleRequest<'a>),
    /// Answer the value of a key.
    Read(ReadRequest<'a>),
}

/// Takes a text frame apart.
///
/// # Errors
/// A [`Refusal`] to be answered as ERR; its code says what is wrong.
pub fn parse<'a>(frame: &'a str, limits: &Limits) -> Result<JsonRequest<'a>, Refusal> {
    let request = Envelope::read(frame, limits).and_then(|envelope| envelope.request(limits));
    request.map_err(|refusal| Refusal { re: scan::message_id(frame), ..refusal })
}

/// The object that a frame is: its known fields as they were written.
#[derive(Default)]
struct Envelope<'a> {
    fields: [Option<&'a RawValue>; Field::ALL.len()],
    /// A known field that is there twice.
    twice: Option<Field>,
    /// The other fields.
    unknown: Unknown<'a>,
}

impl<'a> Envelope<'a> {
    fn read(frame: &'a str, limits: &Limits) -> Result<Self, Refusal> {
        // The envelope is one level more than the value in it.
        let deep = scan::deeper_than(frame, limits.max_json_depth.saturating_add(1));
        let object = frame.trim_start_matches(scan::WHITE_SPACE).starts_with('{');
        if deep.is_some() || !object {
            serde_json::from_str::<IgnoredAny>(frame).map_err(|error| invalid_json(&error))?;
        }
        if !object {
            return Err(Refusal::new(Code::NotAnObject, "the frame is JSON, but no object"));
        }
        let mut envelope = Self::default();
        let mut json = serde_json::Deserializer::from_str(frame);
        let read = envelope.deserialize(&mut json).and_then(|()| json.end());
        read.map_err(|error| invalid_json(&error))?;
        if let Some(offset) = deep {
            envelope.refuse_depth(frame, offset, limits)?;
        }
        envelope.refuse_repetition()?;
        Ok(envelope)
    }

    /// The frame is nested too deeply at this place. In a NACK that may be the reason, which never
    /// costs a refusal its effect.
    fn refuse_depth(&self, frame: &str, offset: usize, limits: &Limits) -> Result<(), Refusal> {
        let field = scan::field_at(frame, offset).filter(|field| is_name(field));
        match field {
            Some(field) if field == "reason" && self.raw(Field::Type) == Some("\"NACK\"") => Ok(()),
            Some(field) => Err(too_deep(&format!("$.{field}"), limits)),
            None => Err(too_deep("$", limits)),
        }
    }

    fn refuse_repetition(&mut self) -> Result<(), Refusal> {
        if let Some(field) = self.twice {
            let message = format!("{} is there twice", field.as_str());
            return Err(field.refusal(Code::InvalidJson, message));
        }
        if self.unknown.repeat() {
            return Err(Refusal::new(Code::InvalidJson, "an unknown field is there twice"));
        }
        Ok(())
    }

    fn request(&self, limits: &Limits) -> Result<JsonRequest<'a>, Refusal> {
        let Some(name) = self.text(Field::Type)? else {
            // It may be there by another name.
            self.unknown.refuse(OF_MESSAGES)?;
            return Err(Field::Type.missing());
        };
        match &*name {
            "ACK" => self.taking(OF_SETTLEMENTS)?.ack().map(JsonRequest::Settle),
            "NACK" => self.taking(OF_SETTLEMENTS)?.nack().map(JsonRequest::Settle),
            name => match (Kind::from_name(name), ReadRequest::kind_of(name)) {
                (Some(kind), _) => {
                    self.taking(OF_MESSAGES)?.publish(kind, limits).map(JsonRequest::Publish)
                }
                (None, Some(kind)) => {
                    self.taking(OF_READS)?.read_of(kind, limits).map(JsonRequest::Read)
                }
                (None, None) => Err(unknown_type(name)),
            },
        }
    }

    /// The envelope of a frame that takes these fields, if no other is in it that is unknown. One
    /// that another type takes is not looked at.
    fn taking(&self, fields: &[Field]) -> Result<&Self, Refusal> {
        self.unknown.refuse(fields).map(|()| self)
    }

    fn read_of(&self, kind: Kind, limits: &Limits) -> Result<ReadRequest<'a>, Refusal> {
        let read = ReadRequest { kind: Some(kind), id: self.id()?, key: self.key()? };
        read.check(limits)?;
        Ok(read)
    }

    fn publish(&self, kind: Kind, limits: &Limits) -> Result<Draft<'a>, Refusal> {
        let draft = Draft {
            kind,
            id: self.id()?,
            key: self.key()?,
            body: match kind {
                // It has no value: one that is there is as good as an unknown field.
                Kind::Dk => NO_VALUE,
                Kind::Sk | Kind::Sa | Kind::Sw | Kind::Cmd => {
                    self.raw(Field::Value).ok_or_else(|| Field::Value.missing())?
                }
            },
            tags: match self.optional(Field::TargetedTags) {
                Some(raw) => tags(raw, limits)?,
                None => String::new(),
            },
            ttl: self.integer(Field::TtlMs)?.map(Duration::from_millis),
        };
        draft.check(limits)?;
        draft.check_shape()?;
        Ok(draft)
    }

    fn ack(&self) -> Result<SettleRequest<'a>, Refusal> {
        let target = self.target()?;
        let up_to = match self.optional(Field::UpTo) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Field::UpTo.invalid("true or false")),
        };
        match (target, up_to) {
            (SettleTarget::Delivery(delivery), false) => Ok(SettleRequest::Ack(delivery)),
            (SettleTarget::Delivery(delivery), true) => Ok(SettleRequest::AckUpTo(delivery)),
            (SettleTarget::Id(id), false) => Ok(SettleRequest::AckId(id)),
            (SettleTarget::Id(_), true) => {
                let message = "upTo needs a deliveryId: a messageId has no order";
                Err(Field::DeliveryId.refusal(Code::MissingField, message))
            }
        }
    }

    fn nack(&self) -> Result<SettleRequest<'a>, Refusal> {
        let target = self.target()?;
        let action = self.text(Field::Action)?.ok_or_else(|| Field::Action.missing())?;
        let reason = self.raw(Field::Reason).map(reason_of).unwrap_or_default();
        match &*action {
            "retry" => Ok(SettleRequest::Retry { target, reason }),
            "reject" => Ok(SettleRequest::Reject { target, reason }),
            _ => Err(Field::Action.invalid("\"retry\" or \"reject\"")),
        }
    }

    /// The delivery that is meant. A `deliveryId` is exact and goes before a `messageId`.
    fn target(&self) -> Result<SettleTarget<'a>, Refusal> {
        let id = self.id()?;
        match (self.integer(Field::DeliveryId)?, id) {
            (Some(delivery), _) => Ok(SettleTarget::Delivery(Position::new(delivery))),
            (None, Some(id)) => Ok(SettleTarget::Id(id)),
            (None, None) => {
                let message = "there is neither a deliveryId nor a messageId";
                Err(Field::DeliveryId.refusal(Code::MissingField, message))
            }
        }
    }

    fn key(&self) -> Result<Cow<'a, str>, Refusal> {
        self.text(Field::Key)?.ok_or_else(|| Field::Key.missing())
    }

    fn id(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let (field, raw) = (Field::MessageId, self.optional(Field::MessageId));
        let id = raw.map(|raw| field.string(raw)).transpose()?;
        if let Some(id) = &id {
            check_id(id)?;
        }
        Ok(id)
    }

    fn text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Refusal> {
        self.raw(field).map(|raw| field.string(raw)).transpose()
    }

    fn integer(&self, field: Field) -> Result<Option<u64>, Refusal> {
        let number = |raw| whole(raw).ok_or_else(|| field.invalid("a whole number in its range"));
        self.optional(field).map(number).transpose()
    }

    /// A field that may be left out: many serialisers write `null` then.
    fn optional(&self, field: Field) -> Option<&'a str> {
        self.raw(field).filter(|raw| *raw != "null")
    }

    fn raw(&self, field: Field) -> Option<&'a str> {
        self.fields[field as usize].map(RawValue::get)
    }
}

/// Canonical form of the list `raw`.
fn tags(raw: &str, limits: &Limits) -> Result<String, Refusal> {
    // One more than the limit is enough to see that there are too many.
    let items = FirstItems(limits.max_tags.saturating_add(1))
        .deserialize(&mut serde_json::Deserializer::from_str(raw))
        .map_err(|_| Field::TargetedTags.invalid("a list of strings"))?;
    let mut tags = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        tags.push(scan::string(item.get()).map_err(|_| bad_tag(index))?);
    }
    canonical_tags(tags, limits)
}

fn invalid_json(error: &serde_json::Error) -> Refusal {
    Refusal::new(Code::InvalidJson, format!("not one JSON value: {error}"))
}

fn unknown_type(name: &str) -> Refusal {
    let known = "known are SK, SA, SW, DK, CMD, GK, GA, GW, ACK and NACK";
    let message = if is_name(name) {
        format!("type {name} is unknown; {known}")
    } else {
        format!("the type is unknown; {known}")
    };
    Field::Type.refusal(Code::UnknownType, message)
}

impl<'de> DeserializeSeed<'de> for &mut Envelope<'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Envelope<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<FieldName<'de>>()? {
            match name {
                FieldName::Known(field) => {
                    let slot = &mut self.fields[field as usize];
                    if slot.replace(map.next_value()?).is_some() {
                        self.twice = Some(field);
                    }
                }
                FieldName::Unknown(name) => {
                    self.unknown.push(name);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a list and keeps at most this many of its items.
struct FirstItems(usize);

impl<'de> DeserializeSeed<'de> for FirstItems {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FirstItems {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() < self.0 {
                items.push(item);
            }
        }
        Ok(items)
    }
}
