//! The structures and numbers of LeechCore's C interface.
//!
//! Owns: layouts and constants, nothing else. Must not know: what becomes of them.
//! Source: `leechcore.h`, header version 2.15 (<https://github.com/ufrisk/LeechCore>); a `DWORD` and a `BOOL` have 32 bits, a `QWORD`
//! 64, a `WCHAR` 16 on every system, and `MAX_PATH` is 260.

use std::ffi::{c_char, c_int, c_void};

/// `MAX_PATH`: bytes of a text, its terminator included.
pub(crate) const TEXT: usize = 260;
/// `LC_CONFIG_VERSION`.
pub(crate) const CONFIG_VERSION: u32 = 0xc0fd_0002;
/// `LC_CONFIG_ERRORINFO_VERSION`.
pub(crate) const ERROR_VERSION: u32 = 0xc0fe_0002;
/// `MEM_SCATTER_VERSION`.
pub(crate) const SCATTER_VERSION: u32 = 0xc0fe_0002;
/// Most bytes of one entry; an entry may not cross a boundary of this size either.
pub(crate) const PAGE: u64 = 0x1000;
/// Entries of a read start and end at multiples of this: a start at a multiple of 4 and at least 8 bytes are asked for.
pub(crate) const GRAIN: u64 = 8;
/// `LC_OPT_CORE_VERSION_MAJOR`.
pub(crate) const OPTION_VERSION_MAJOR: u64 = 0x4000_0005_0000_0000;
/// `LC_CMD_MEMMAP_GET_STRUCT`: the memory map as [`MapEntry`]s.
pub(crate) const COMMAND_MAP: u64 = 0x4000_0400_0000_0000;

/// `LC_CONFIG`.
#[repr(C)]
pub(crate) struct Config {
    pub(crate) version: u32,
    pub(crate) verbosity: u32,
    pub(crate) device: [c_char; TEXT],
    pub(crate) remote: [c_char; TEXT],
    pub(crate) printf: Option<unsafe extern "C" fn(*const c_char, ...) -> c_int>,
    /// Set by the caller to keep LeechCore from searching for the last address by reading.
    pub(crate) last_address: u64,
    // From here on set by LeechCore.
    pub(crate) volatile: u32,
    pub(crate) writable: u32,
    pub(crate) is_remote: u32,
    pub(crate) remote_uncompressed: u32,
    pub(crate) device_name: [c_char; TEXT],
}

/// `LC_CONFIG_ERRORINFO`, up to the text of `text_len` UTF-16 units that follows.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ErrorInfo {
    pub(crate) version: u32,
    pub(crate) size: u32,
    pub(crate) reserved: [u32; 16],
    pub(crate) asks_user: u32,
    pub(crate) text_len: u32,
}

/// `MEM_SCATTER`: one entry of a read or write.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Scatter {
    pub(crate) version: u32,
    /// Set by LeechCore: whether all bytes were read or written.
    pub(crate) done: u32,
    pub(crate) address: u64,
    pub(crate) buffer: Buffer,
    pub(crate) len: u32,
    pub(crate) stack_top: u32,
    pub(crate) stack: [u64; 12],
}

/// The buffer of an entry: 64 bits on every machine.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union Buffer {
    pub(crate) bytes: *mut u8,
    pub(crate) filler: u64,
}

/// `LC_MEMMAP_ENTRY`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MapEntry {
    pub(crate) address: u64,
    pub(crate) len: u64,
    /// Where the device has it; LeechCore translates that itself.
    pub(crate) device_address: u64,
}

/// `LcCreateEx`.
pub(crate) type Create = unsafe extern "C" fn(*mut Config, *mut *mut c_void) -> *mut c_void;
/// `LcClose`, `LcMemFree`.
pub(crate) type Release = unsafe extern "C" fn(*mut c_void);
/// `LcReadScatter`, `LcWriteScatter`.
pub(crate) type Transfer = unsafe extern "C" fn(*mut c_void, u32, *mut *mut Scatter);
/// `LcGetOption`.
pub(crate) type GetOption = unsafe extern "C" fn(*mut c_void, u64, *mut u64) -> u32;
/// `LcCommand`.
pub(crate) type Command = unsafe extern "C" fn(*mut c_void, u64, u32, *mut u8, *mut *mut u8, *mut u32) -> u32;

const _: () = assert!(size_of::<Scatter>() == 128 && size_of::<MapEntry>() == 24 && size_of::<ErrorInfo>() == 80);
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Config>() == 824);
