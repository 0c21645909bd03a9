//! libFuzzer's driver for the target `kdbg`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::kdbg(data));
