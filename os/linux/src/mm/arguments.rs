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
/// later, so more is taken, but not without limit.
const MAX_LEN: u64 = 64 << 20;
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
    use super::*;

    #[test]
    fn empty_arguments_are_kept() {
        assert_eq!(strings(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(strings(b"\0"), [""]);
        assert_eq!(strings(b"open"), ["open"]);
    }
}
