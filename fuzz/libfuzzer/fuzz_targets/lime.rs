//! libFuzzer's driver for the target `lime`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::lime(data));
