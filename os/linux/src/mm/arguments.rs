//! The arguments and the environment that a process was started with.
//!
//! Owns: which bytes of the process they are. Must not know: how a process is read.
//! Keeps: what the process put there since counts, as in /proc; lengths have a limit.
//! Source: fs/proc/base.c (get_mm_cmdline, environ_read).

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    error::{Error, Result},
};

use super::Mm;

/// The kernel takes at most 6 MiB of arguments and environment (three quarters of 8 MiB, fs/exec.c); a process can point elsewhere
/// later, so a little more is taken.
const MAX_LEN: u64 = 8 << 20;
/// A title that a process wrote over its arguments ends after this many bytes (one page in the kernel's reader).
const MAX_TITLE: u64 = 4096;

/// The arguments. `memory` is the process' own.
pub(crate) fn command_line(memory: &dyn MemoryView, mm: &Mm) -> Result<Vec<String>> {
    let Some(len) = mm.arg_end.offset_from(mm.arg_start).filter(|len| *len > 0) else { return Ok(Vec::new()) };
    if mm.env_end.is_null() {
        // Not started yet.
        return Ok(Vec::new());
    }
    check_len("arguments", mm.arg_start, len)?;
    // A process may write a title over its arguments, and past their end into the environment: the last byte is then not zero.
    let last: u8 = memory.read(mm.arg_end.wrapping_sub(1))?;
    if last == 0 {
        return memory.read_bytes(mm.arg_start, len).map(|bytes| strings(&bytes));
    }
    let end = if mm.env_start == mm.arg_end { mm.env_end.max(mm.arg_end) } else { mm.arg_end };
    let room = end.offset_from(mm.arg_start).unwrap_or_default().min(MAX_TITLE);
    let title = memory.read_c_string(mm.arg_start, usize::try_from(room).unwrap_or_default())?;
    Ok(vec![String::from_utf8_lossy(&title).into_owned()])
}

/// The environment. `memory` is the process' own.
pub(crate) fn environment(memory: &dyn MemoryView, mm: &Mm) -> Result<Vec<String>> {
    let Some(len) = mm.env_end.offset_from(mm.env_start).filter(|len| *len > 0) else { return Ok(Vec::new()) };
    check_len("environment", mm.env_start, len)?;
    memory.read_bytes(mm.env_start, len).map(|bytes| strings(&bytes))
}

fn check_len(what: &'static str, start: VirtAddr, len: u64) -> Result<()> {
    if len > MAX_LEN {
        return Err(Error::Limit { what, address: start.into(), limit: MAX_LEN });
    }
    Ok(())
}

/// The strings of an area of zero-terminated strings.
fn strings(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|string| String::from_utf8_lossy(string).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::testing::Memory;

    /// Arguments at 0x1000, the environment right behind them.
    fn mm(arguments: u64, environment: u64) -> Mm {
        let at = VirtAddr::new;
        Mm {
            exe_file: at(0),
            arg_start: at(0x1000),
            arg_end: at(0x1000 + arguments),
            env_start: at(0x1000 + arguments),
            env_end: at(0x1000 + arguments + environment),
            start_brk: at(0),
            brk: at(0),
            start_stack: at(0),
            has_vsyscall: false,
            vma_root: at(0),
        }
    }

    fn put(bytes: &[u8]) -> Memory {
        let mut memory = Memory::default();
        memory.put(0x1000, bytes);
        memory
    }

    #[test]
    fn arguments_and_environment_are_split_at_zeros() {
        let memory = put(b"sh\0-c\0\0HOME=/\0A=b c\0");
        let mm = mm(7, 13);
        assert_eq!(command_line(&memory, &mm).unwrap(), ["sh", "-c", ""]);
        assert_eq!(environment(&memory, &mm).unwrap(), ["HOME=/", "A=b c"]);
    }

    #[test]
    fn title_written_over_the_arguments_ends_at_its_zero() {
        // Six bytes of arguments, the title goes on into the environment.
        let memory = put(b"daemon: ready\0rest\0");
        assert_eq!(command_line(&memory, &mm(6, 13)).unwrap(), ["daemon: ready"]);
        // Without an environment behind them it ends with the arguments.
        let apart = Mm { env_start: VirtAddr::new(0x9000), env_end: VirtAddr::new(0x9010), ..mm(6, 0) };
        assert_eq!(command_line(&memory, &apart).unwrap(), ["daemon"]);
        // Nor does an environment that ends before it starts add to it.
        let turned = Mm { env_end: VirtAddr::new(0x800), ..mm(6, 0) };
        assert_eq!(command_line(&memory, &turned).unwrap(), ["daemon"]);
    }

    #[test]
    fn title_is_read_for_one_page_at_most() {
        let memory = put(&[b'x'; 0x3000]);
        assert_eq!(command_line(&memory, &mm(0x2000, 0x1000)).unwrap(), ["x".repeat(0x1000)]);
    }

    #[test]
    fn process_without_arguments_has_none() {
        let memory = put(b"");
        assert!(command_line(&memory, &mm(0, 0)).unwrap().is_empty());
        assert!(environment(&memory, &mm(0, 0)).unwrap().is_empty());
        let not_started = Mm { env_end: VirtAddr::new(0), ..mm(8, 0) };
        assert!(command_line(&memory, &not_started).unwrap().is_empty());
        let turned = Mm { arg_end: VirtAddr::new(0x800), ..mm(0, 0) };
        assert!(command_line(&memory, &turned).unwrap().is_empty());
    }

    #[test]
    fn hostile_lengths_and_missing_pages_are_errors() {
        let memory = put(b"sh\0");
        assert!(matches!(command_line(&memory, &mm(1 << 40, 0)), Err(Error::Limit { .. })));
        assert!(matches!(environment(&memory, &mm(0, u64::MAX >> 1)), Err(Error::Limit { .. })));
        assert!(command_line(&memory, &mm(0x100, 0)).is_err());
        assert!(environment(&memory, &mm(3, 8)).is_err());
    }

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(strings(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(strings(b"\0"), [""]);
        assert_eq!(strings(b"open"), ["open"]);
    }
}
