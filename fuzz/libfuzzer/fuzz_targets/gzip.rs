//! libFuzzer's driver for the target `gzip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::gzip(data));
