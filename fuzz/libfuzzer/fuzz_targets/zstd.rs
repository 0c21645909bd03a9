//! libFuzzer's driver for the target `zstd`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::zstd(data));
