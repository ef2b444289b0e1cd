//! Hands libFuzzer's bytes to [`slipstream_fuzz::inputs`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| slipstream_fuzz::inputs(bytes));
