//! libFuzzer's driver for the target `pe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::pe(data));
