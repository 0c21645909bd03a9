//! libFuzzer's driver for the target `beside`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::beside(data));
