//! libFuzzer's driver for the target `libvirt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::libvirt(data));
