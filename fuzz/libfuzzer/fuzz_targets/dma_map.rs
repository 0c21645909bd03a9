//! libFuzzer's driver for the target `dma_map`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::dma_map(data));
