//! libFuzzer's driver for the target `btf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::btf(data));
