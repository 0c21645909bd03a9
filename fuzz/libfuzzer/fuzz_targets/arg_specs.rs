//! libFuzzer's driver for the target `arg_specs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::arg_specs(data));
