//! libFuzzer's driver for the target `qemu_command_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| memflow_fuzz::qemu_command_line(data));
