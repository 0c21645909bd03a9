//! libFuzzer's driver for the target `descriptor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::descriptor(data));
