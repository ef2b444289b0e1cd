//! How many digits of a digest are shown.

/// Hexadecimal digits of a digest where many are listed: 48 bits, so that of a thousand keys no two
/// look alike but once in a hundred million times.
pub(super) const DIGITS: usize = 12;
