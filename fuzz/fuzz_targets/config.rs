//! Hands libFuzzer's bytes to [`slipstream_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slipstream_fuzz::config(bytes));
