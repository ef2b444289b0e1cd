//! Whole numbers, however a serialiser writes them.
//!
//! JSON has one kind of number (RFC 8259 section 6), and some languages have only floating-point
//! ones: 17 may come as `17.0` or `1.7e1`. What stays true: nothing is rounded, a number that has
//! a fraction or a sign is none, and nothing is allocated.

/// Largest whole number that is taken in another form than plain digits: up to it every one has a
/// floating-point number of its own.
const LARGEST: u64 = 1 << 53;

/// The number that the JSON value `raw`, without white space around it, stands for; `None` if it
/// is no whole number of at least 0.
pub(crate) fn whole(raw: &str) -> Option<u64> {
    if !raw.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    raw.parse().ok().or_else(|| with_exponent(raw))
}

/// The number as its digits, shifted by a power of ten.
fn with_exponent(raw: &str) -> Option<u64> {
    let (digits, exponent) = match raw.find(['e', 'E']) {
        Some(at) => (&raw[..at], shift(&raw[at + 1..])?),
        None => (raw, 0),
    };
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    // Zeros at the end of a fraction say nothing, and before it they belong to the power of ten.
    let behind = behind.trim_end_matches('0');
    let (mut value, mut exponent) = (0_u64, exponent - i64::try_from(behind.len()).ok()?);
    let (before, behind) = if behind.is_empty() {
        let trimmed = before.trim_end_matches('0');
        exponent += i64::try_from(before.len() - trimmed.len()).ok()?;
        (trimmed, behind)
    } else {
        (before, behind)
    };
    for digit in before.chars().chain(behind.chars()) {
        let digit = u64::from(digit.to_digit(10)?);
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    match exponent {
        _ if value == 0 => Some(0),
        0.. => value.checked_mul(10_u64.checked_pow(u32::try_from(exponent).ok()?)?),
        _ => None,
    }
    .filter(|value| *value <= LARGEST)
}

/// An exponent, held where it makes no difference any more: no frame has as many digits.
fn shift(text: &str) -> Option<i64> {
    const FAR: i64 = 1 << 40;
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() {
        return None;
    }
    let mut size = 0_i64;
    for digit in digits.chars() {
        size = (size * 10 + i64::from(digit.to_digit(10)?)).min(FAR);
    }
    Some(if is_negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_way_to_write_a_number_is_a_number() {
        let zeros = "0".repeat(5_000);
        for (text, number) in [
            (format!("17.{zeros}"), Some(17)),
            (format!("17{zeros}e-5000"), Some(17)),
            (format!("0.{zeros}17e5002"), Some(17)),
            (format!("17{zeros}"), None),
            (format!("0.{zeros}17e5001"), None),
            (format!("0{zeros}.0e{zeros}9"), Some(0)),
        ] {
            assert_eq!(whole(&text), number, "{} bytes", text.len());
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "e", "1e", "1e+", "e5", "null", "\"1\"", "1.5", "-1", "- 1", "[1]", "1 2"]
        {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_form_of_a_number_is_that_number(number in 0..=LARGEST, places in 0_usize..20) {
            let digits = format!("{number:020}");
            let (before, behind) = digits.split_at(20 - places);
            for text in [
                format!("{number}"),
                format!("{number}.0"),
                format!("{number}e0"),
                format!("{number}{}E-{places}", "0".repeat(places)),
                format!("{before}.{behind}e{places}"),
            ] {
                prop_assert_eq!(whole(&text), Some(number), "{}", text);
            }
        }

        #[test]
        fn any_text_is_a_number_or_none(text in r"[-+0-9.eE]{0,12}|\PC*") {
            let _ = whole(&text);
        }
    }
}
