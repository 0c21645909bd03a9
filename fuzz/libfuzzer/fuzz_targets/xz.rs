//! libFuzzer's driver for the target `xz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::xz(data));
