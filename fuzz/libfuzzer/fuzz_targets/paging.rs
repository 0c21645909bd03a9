//! libFuzzer's driver for the target `paging`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::paging(data));
