//! Tables for people, from the JSON of the admin endpoint.

use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// A table with this heading.
pub(crate) fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().map(|title| (*title).to_owned()));
    table
}

/// A value as a cell: `-` for none, lists joined by commas.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

/// A number of bytes as a cell.
pub(crate) fn bytes(value: &Value) -> String {
    value.as_u64().map_or("-".to_owned(), |bytes| ByteSize(bytes).display().iec().to_string())
}

/// Milliseconds as a cell; from a second on without the fraction.
pub(crate) fn duration(value: &Value) -> String {
    let Some(ms) = value.as_u64() else { return "-".to_owned() };
    let ms = if ms < 1000 { ms } else { ms / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// Milliseconds since the epoch as a cell.
pub(crate) fn time(ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(ms)) {
        // The formatter knows the years up to 9999.
        Some(at) if ms < 253_402_300_800_000 => humantime::format_rfc3339_seconds(at).to_string(),
        Some(_) | None => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_for_people() {
        assert_eq!(cell(&json!(null)), "-");
        assert_eq!(cell(&json!(["aws", "gcp"])), "aws,gcp");
        assert_eq!(bytes(&json!(10 << 20)), "10.0 MiB");
        assert_eq!(duration(&json!(61_500)), "1m 1s");
        assert_eq!(duration(&json!(250)), "250ms");
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
    }
}
