//! libFuzzer's driver for the target `gdb_packet`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::gdb_packet(data));
