//! libFuzzer's driver for the target `crash_dump`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::crash_dump(data));
