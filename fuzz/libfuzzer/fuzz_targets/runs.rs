//! libFuzzer's driver for the target `runs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::runs(data));
