//! Values: one JSON value each, passed on as it was written.
//!
//! What stays true: a value is looked into only where its kind promises a shape (an array, a map
//! of weights, nothing at all), without recursion and without changing a byte of it.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::types::kind::Kind;

/// The body of what has no value: a delete.
pub const NO_VALUE: &str = "null";

/// Whether `text` is exactly one JSON value, perhaps with white space around it. Takes any depth:
/// `serde_json` skips values without recursion.
///
/// # Errors
/// [`BadValue`] if it is not.
pub fn check_value(text: &str) -> Result<(), BadValue> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|_| BadValue)
}

/// A text that is not exactly one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not exactly one JSON value")]
pub struct BadValue;

/// Whether `text`, one JSON value without white space around it, has the shape that its kind
/// promises: SA is an array, SW an object of unique members and weights, DK nothing.
///
/// # Errors
/// [`BadShape`] says what is wrong.
pub fn check_shape(kind: Kind, text: &str) -> Result<(), BadShape> {
    match kind {
        Kind::Sk | Kind::Cmd => Ok(()),
        Kind::Sa if text.starts_with('[') => Ok(()),
        Kind::Sa => Err(BadShape::NoArray),
        Kind::Sw => check_weights(text),
        Kind::Dk if text == NO_VALUE => Ok(()),
        Kind::Dk => Err(BadShape::Value),
    }
}

/// A value that has not the shape of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// SA without an array.
    #[error("the value of SA is not an array")]
    NoArray,
    /// SW without an object.
    #[error("the value of SW is not an object of member to weight")]
    NoObject,
    /// A weight of SW is none.
    #[error("a weight of SW is not a finite number of at least 0")]
    Weight,
    /// A member of SW is there twice.
    #[error("a member of SW is there twice")]
    Twice,
    /// DK with a value.
    #[error("DK has no value")]
    Value,
}

fn check_weights(text: &str) -> Result<(), BadShape> {
    let Weighted(mut members, sound) =
        serde_json::from_str(text).map_err(|_| BadShape::NoObject)?;
    if !sound {
        return Err(BadShape::Weight);
    }
    members.sort_unstable();
    if members.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(BadShape::Twice);
    }
    Ok(())
}

/// JSON has neither infinities nor signs in front of numbers, but numbers that are too large.
fn is_weight(text: &str) -> bool {
    text.parse().is_ok_and(|weight: f64| weight.is_finite() && weight >= 0.0)
}

/// The members of a map, and whether all weights are some.
struct Weighted<'a>(Vec<Cow<'a, [u8]>>, bool);

impl<'de> Deserialize<'de> for Weighted<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightedVisitor)
    }
}

struct WeightedVisitor;

impl<'de> Visitor<'de> for WeightedVisitor {
    type Value = Weighted<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weighted<'de>, A::Error> {
        let mut weighted = Weighted(Vec::new(), true);
        while let Some(Member(name)) = map.next_key()? {
            weighted.0.push(name);
            weighted.1 &= is_weight(map.next_value::<&RawValue>()?.get());
        }
        Ok(weighted)
    }
}

/// Name of a member, as the bytes that it stands for: half of a surrogate pair is no text.
struct Member<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Member<'de>, E> {
        Ok(Member(Cow::Borrowed(name.as_bytes())))
    }

    fn visit_str<E>(self, name: &str) -> Result<Member<'de>, E> {
        Ok(Member(Cow::Owned(String::from(name).into_bytes())))
    }

    fn visit_borrowed_bytes<E>(self, name: &'de [u8]) -> Result<Member<'de>, E> {
        Ok(Member(Cow::Borrowed(name)))
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Member<'de>, E> {
        Ok(Member(Cow::Owned(name.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // keeps: weights
    #[test]
    fn weights_are_finite_numbers_of_at_least_zero() {
        for good in [
            "{}",
            r#"{"nets":0.7,"bambora":0.3}"#,
            r#"{ "a" : 0 , "" : 1E+2, "b": 1.7976931348623157e308, "c": -0 }"#,
            r#"{"\ud800":1,"\ud801":2}"#,
        ] {
            assert_eq!(check_shape(Kind::Sw, good), Ok(()), "{good}");
        }
        for bad in ["-1", "-0.5", "1e309", "null", "true", "\"1\"", "[1]", "{}"] {
            let text = alloc::format!(r#"{{"a":1,"b":{bad}}}"#);
            assert_eq!(check_shape(Kind::Sw, &text), Err(BadShape::Weight), "{text}");
        }
        for bad in ["[]", "1", "null", "\"a\"", "", "{", "{\"a\"}", "{} {}", "{\"a\":nan}"] {
            assert_eq!(check_shape(Kind::Sw, bad), Err(BadShape::NoObject), "{bad}");
        }
    }

    // keeps: weights
    #[test]
    fn a_member_is_there_once_however_it_is_written() {
        for twice in
            [r#"{"a":1,"b":2,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"\ud800":1,"\uD800":2}"#]
        {
            assert_eq!(check_shape(Kind::Sw, twice), Err(BadShape::Twice), "{twice}");
        }
    }

    #[test]
    fn a_delete_has_no_value() {
        assert_eq!(check_shape(Kind::Dk, "null"), Ok(()));
        assert_eq!(check_shape(Kind::Dk, "1"), Err(BadShape::Value));
    }
}
