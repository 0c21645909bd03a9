//! libFuzzer's driver for the target `analyze`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::analyze(data));
