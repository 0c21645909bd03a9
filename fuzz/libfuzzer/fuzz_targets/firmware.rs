//! libFuzzer's driver for the target `firmware`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::firmware(data));
