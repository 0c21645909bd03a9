//! libFuzzer's driver for the target `layout_entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::layout_entry(data));
