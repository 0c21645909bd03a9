//! libFuzzer's driver for the target `args`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::args(data));
