//! libFuzzer's driver for the target `vmcoreinfo`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::vmcoreinfo(data));
