//! libFuzzer's driver for the target `log_ring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::log_ring(data));
