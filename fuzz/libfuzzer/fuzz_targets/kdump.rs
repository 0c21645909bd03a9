//! libFuzzer's driver for the target `kdump`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::kdump(data));
