//! libFuzzer's driver for the target `kcore`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::kcore(data));
