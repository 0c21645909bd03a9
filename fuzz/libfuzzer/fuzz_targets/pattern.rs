//! libFuzzer's driver for the target `pattern`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::pattern(data));
