//! libFuzzer's driver for the target `open`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::open(data));
