//! libFuzzer's driver for the target `elf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::elf(data));
