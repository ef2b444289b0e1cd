//! Levels and filters of the log.

use tracing_subscriber::EnvFilter;

/// Why a text is no log level or filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{filter}` is not a log level or filter: {reason}")]
pub(crate) struct BadFilter {
    filter: String,
    reason: String,
}

impl BadFilter {
    pub(crate) fn new(filter: &str, reason: String) -> Self {
        Self { filter: filter.to_owned(), reason }
    }
}

/// Reads a level (`debug`) or a filter (`info,slipstream_core=debug`).
///
/// # Errors
/// [`BadFilter`] if it is neither; also for a bare word that is no level, which the filter
/// language takes for the name of a module.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, BadFilter> {
    let bad = |reason: String| BadFilter::new(filter, reason);
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in filter.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
        if !is_level && !part.contains(['=', '[', ']', '}']) {
            return Err(bad(format!("`{part}` is none of {}", LEVELS.join(", "))));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_pass_and_typing_errors_do_not() {
        for good in ["info", "DEBUG", "off", "warn,slipstream_core=debug", "a::b=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "debgu", "info,debgu", "a=debgu", "info,"] {
            assert!(parse_filter(bad).is_err(), "{bad}");
        }
    }
}
