//! libFuzzer's driver for the target `log_flat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::log_flat(data));
