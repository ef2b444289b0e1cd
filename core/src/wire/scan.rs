//! Looks at JSON text without parsing it: how deep it is, and what an envelope holds even when the
//! frame as a whole is no JSON.
//!
//! What stays true: one pass, no recursion, and any text is taken, JSON or not. Whether a text is
//! JSON is not decided here.

use alloc::borrow::Cow;
use alloc::string::String;

use crate::wire::message::MAX_MESSAGE_ID_BYTES;

/// White space of JSON (RFC 8259 section 2); `str::trim` would take more.
pub(crate) const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Where `text` is nested deeper than `limit` arrays and objects for the first time.
pub(crate) fn deeper_than(text: &str, limit: usize) -> Option<usize> {
    let opens = |byte: u8| byte | 0x20 == b'{';
    // Most texts have fewer brackets than they might have levels. Counting them takes no branches.
    if text.bytes().filter(|&byte| opens(byte)).count() <= limit {
        return None;
    }
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'[' | b'{' if depth == limit => return Some(at),
            b'[' | b'{' => (depth, at) = (depth + 1, at + 1),
            b']' | b'}' => (depth, at) = (depth.saturating_sub(1), at + 1),
            _ => at += 1,
        }
    }
    None
}

/// The `messageId` of a frame, JSON or not, if there is one of a length that is allowed.
pub(crate) fn message_id(frame: &str) -> Option<String> {
    let id = Members::new(frame).find(|member| member.is("messageId"))?;
    let id = string(id.value).ok()?;
    (1..=MAX_MESSAGE_ID_BYTES).contains(&id.len()).then(|| id.into_owned())
}

/// Name of the envelope's field in which the byte at `offset` lies.
pub(crate) fn field_at(frame: &str, offset: usize) -> Option<Cow<'_, str>> {
    let end = |member: &ObjectMember<'_>| member.value.as_ptr() as usize + member.value.len();
    let offset = frame.as_ptr() as usize + offset;
    string(Members::new(frame).find(|member| end(member) > offset)?.name).ok()
}

/// Why a JSON value is not to be had as a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadString {
    /// It is another kind of value.
    Other,
    /// It holds half of a surrogate pair: JSON, but no Unicode.
    LoneSurrogate,
}

/// The string that the JSON value `raw`, without white space around it, stands for.
pub(crate) fn string(raw: &str) -> Result<Cow<'_, str>, BadString> {
    let inner = raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"'));
    let inner = inner.ok_or(BadString::Other)?;
    if inner.contains('\\') {
        serde_json::from_str(raw).map(Cow::Owned).map_err(|_| BadString::LoneSurrogate)
    } else {
        Ok(Cow::Borrowed(inner))
    }
}

/// One field of an envelope, as it was written.
struct ObjectMember<'a> {
    /// With its quotes.
    name: &'a str,
    value: &'a str,
}

impl ObjectMember<'_> {
    fn is(&self, name: &str) -> bool {
        string(self.name).is_ok_and(|own| own == name)
    }
}

/// The fields of an envelope in order, as far as they can be told apart.
struct Members<'a> {
    text: &'a str,
    /// Where the next field begins; `None` behind the last.
    next: Option<usize>,
}

impl<'a> Members<'a> {
    fn new(text: &'a str) -> Self {
        let start = skip_white_space(text, 0);
        Self { text, next: (text.as_bytes().get(start) == Some(&b'{')).then_some(start + 1) }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = ObjectMember<'a>;

    fn next(&mut self) -> Option<ObjectMember<'a>> {
        let start = skip_white_space(self.text, self.next.take()?);
        let bytes = self.text.as_bytes();
        if bytes.get(start) != Some(&b'"') {
            return None;
        }
        let name_end = string_end(self.text, start);
        let colon = skip_white_space(self.text, name_end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_white_space(self.text, colon + 1);
        let end = value_end(self.text, value);
        self.next = (bytes.get(end) == Some(&b',')).then_some(end + 1);
        Some(ObjectMember {
            name: &self.text[start..name_end],
            value: self.text[value..end].trim_end_matches(WHITE_SPACE),
        })
    }
}

fn skip_white_space(text: &str, from: usize) -> usize {
    text.len() - text[from..].trim_start_matches(WHITE_SPACE).len()
}

/// Behind the string that begins at `start`, or the end of the text if it does not end.
fn string_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    loop {
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            // What follows may be a character of several bytes: it is passed over bit by bit.
            Some(b'\\') => at = (at + 2).min(bytes.len()),
            Some(_) => at += 1,
        }
    }
}

/// Where the value that begins at `start` gives way to a comma or a closing bracket of what
/// surrounds it, or the end of the text.
fn value_end(text: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at = string_end(text, at),
            b'[' | b'{' => (depth, at) = (depth + 1, at + 1),
            b',' | b']' | b'}' if depth == 0 => return at,
            b']' | b'}' => (depth, at) = (depth - 1, at + 1),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded_and_counted_outside_strings() {
        assert_eq!(deeper_than("[[]]", 2), None);
        assert_eq!(deeper_than("[[]]", 1), Some(1));
        assert_eq!(deeper_than("[{}, {}, {}, {}]", 2), None);
        assert_eq!(deeper_than(r#"["[[[\"[[["]"#, 1), None);
        assert_eq!(deeper_than(r#"["[[[\"[[[",[]]"#, 1), Some(12));
        assert_eq!(deeper_than("]]]]]][[[", 2), Some(8));
        assert_eq!(deeper_than(r#""[[["#, 1), None);
        assert_eq!(deeper_than(r#""[[\"#, 1), None);
        assert_eq!(deeper_than("1", 0), None);
    }

    #[test]
    fn an_id_is_found_in_what_is_no_json() {
        for frame in [
            r#"{"messageId":"m-1","key":}"#,
            r#"{"key":nope,"messageId":"m-1""#,
            r#" { "value" : [{"messageId":"x"},"}"] , "messageId" : "m-1" , "#,
            r#"{"message\u0049d":"m\u002d1"}"#,
            r#"{"messageId":"m-1"}{"messageId":"m-2"}"#,
        ] {
            assert_eq!(message_id(frame).as_deref(), Some("m-1"), "{frame}");
        }
        for frame in [
            "",
            "{",
            r#"["messageId":"m-1"]"#,
            r#"{"messageId":7}"#,
            r#"{"messageId":""}"#,
            r#"{"messageId":"m-1"#,
            r#"{"messageId":"\ud800"}"#,
            r#"{}{"messageId":"m-1"}"#,
            r#"{"value":{"messageId":"m-1"}}"#,
        ] {
            assert_eq!(message_id(frame), None, "{frame}");
        }
    }

    #[test]
    fn a_byte_belongs_to_one_field() {
        let frame = r#"{"a":[1],"b":[2]}"#;
        assert_eq!(field_at(frame, 6).as_deref(), Some("a"));
        assert_eq!(field_at(frame, 14).as_deref(), Some("b"));
        assert_eq!(field_at(frame, 17), None);
    }
}
