//! libFuzzer's driver for the target `iomem`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::iomem(data));
