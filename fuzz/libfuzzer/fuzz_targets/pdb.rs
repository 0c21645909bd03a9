//! libFuzzer's driver for the target `pdb`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::pdb(data));
