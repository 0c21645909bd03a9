//! libFuzzer's driver for the target `lz4`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::lz4(data));
