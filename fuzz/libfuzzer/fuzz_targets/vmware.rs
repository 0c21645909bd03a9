//! libFuzzer's driver for the target `vmware`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::vmware(data));
