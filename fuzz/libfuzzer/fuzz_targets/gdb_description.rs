//! libFuzzer's driver for the target `gdb_description`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::gdb_description(data));
