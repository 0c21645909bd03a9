//! libFuzzer's driver for the target `avml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::avml(data));
