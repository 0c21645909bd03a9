//! libFuzzer's driver for the target `migration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::migration(data));
