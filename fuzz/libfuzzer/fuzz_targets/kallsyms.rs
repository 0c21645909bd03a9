//! libFuzzer's driver for the target `kallsyms`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::kallsyms(data));
