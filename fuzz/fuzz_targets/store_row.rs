//! Hands libFuzzer's bytes to [`slipstream_fuzz::store_row`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slipstream_fuzz::store_row(bytes));
