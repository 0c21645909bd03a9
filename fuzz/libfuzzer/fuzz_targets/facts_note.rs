//! libFuzzer's driver for the target `facts_note`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::facts_note(data));
