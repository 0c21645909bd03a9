//! The header of a Windows crash dump, in both word sizes.
//!
//! Owns: its layouts, and what they become. Must not know: where the pages are.
//! Keeps: a field that was not filled in ("PAGE" over and over, or zero) is absent, not a number.
//!
//! Source: the public structures `DUMP_HEADER32` and `DUMP_HEADER64` of the Windows Driver Kit (`ntdumpdefs`, also in its debugging
//! extensions' `wdbgexts.h`), with the offsets that kdmp-parser and volatility publish.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, Result, VirtAddr,
    memory::{BugCheck, MachineKind, WindowsFacts, X86Registers},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use super::PAGE;
use crate::input::View;

/// First bytes of 64-bit dumps.
const MAGIC_64: &[u8] = b"PAGEDU64";
/// First bytes of 32-bit dumps.
const MAGIC_32: &[u8] = b"PAGEDUMP";
/// What a header is filled with before fields are set: "PAGE".
const UNSET_32: u32 = 0x4547_4150;
const UNSET_64: u64 = 0x4547_4150_4547_4150;
/// `IMAGE_FILE_MACHINE_*`.
const I386: u32 = 0x14c;
const AMD64: u32 = 0x8664;
const ARM64: u32 = 0xaa64;
/// Most runs that fit in the header.
const MAX_RUNS_64: usize = 42;
const MAX_RUNS_32: usize = 86;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header64 {
    signature: [u8; 8],
    major: U32,
    minor: U32,
    directory_table: U64,
    pfn_database: U64,
    loaded_modules: U64,
    active_processes: U64,
    machine: U32,
    processors: U32,
    bug_check: U32,
    padding: U32,
    parameters: [U64; 4],
    version_user: [u8; 32],
    debugger_data: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header32 {
    signature: [u8; 8],
    major: U32,
    minor: U32,
    directory_table: U32,
    pfn_database: U32,
    loaded_modules: U32,
    active_processes: U32,
    machine: U32,
    processors: U32,
    bug_check: U32,
    parameters: [U32; 4],
    version_user: [u8; 32],
    pae: u8,
    secondary_version: u8,
    spare: [u8; 2],
    debugger_data: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Runs64 {
    count: U32,
    padding: U32,
    pages: U64,
    runs: [[U64; 2]; MAX_RUNS_64],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Runs32 {
    count: U32,
    pages: U32,
    runs: [[U32; 2]; MAX_RUNS_32],
}

/// What both layouts say.
pub(super) struct Header {
    pub(super) machine: MachineKind,
    pub(super) kind: u32,
    pub(super) directory_table: u64,
    /// Of the vCPU that wrote the dump.
    pub(super) registers: Option<X86Registers>,
    pub(super) windows: WindowsFacts,
    /// First page and number of pages of each run of memory; none when the header has no list.
    pub(super) runs: Vec<[u64; 2]>,
    /// Offset of what follows the header.
    pub(super) body: u64,
    /// True for the 64-bit layout.
    pub(super) wide: bool,
}

impl Header {
    pub(super) fn read(view: &View<'_>) -> Result<Self> {
        let signature: [u8; 8] = view.read(0, "the header")?;
        match &signature[..] {
            MAGIC_64 => Self::read_64(view),
            MAGIC_32 => Self::read_32(view),
            _ => Err(view.bad(0, "PAGEDU64 or PAGEDUMP", String::from_utf8_lossy(&signature).into_owned())),
        }
    }

    fn read_64(view: &View<'_>) -> Result<Self> {
        const BODY: u64 = 0x2000;
        if view.size() < BODY {
            return Err(view.ends_early(0, BODY, "the header"));
        }
        let raw: Header64 = view.read(0, "the header")?;
        let machine = match raw.machine.get() {
            AMD64 => MachineKind::X86_64,
            ARM64 => MachineKind::AArch64,
            other => return Err(unknown_machine(view, other)),
        };
        let runs: Runs64 = view.read(0x88, "the list of memory")?;
        let kind: U32 = view.read(0xf98, "the kind of dump")?;
        let time: U64 = view.read(0xfa8, "the system time")?;
        let registers = match machine {
            MachineKind::X86_64 => {
                let mut registers = X86Registers::default();
                registers.cr3 = Some(raw.directory_table.get());
                // CONTEXT, x64: Rsp, Rip.
                registers.rsp = word(view.read(0x348 + 0x98, "the context")?);
                registers.rip = word(view.read(0x348 + 0xf8, "the context")?);
                Some(registers)
            }
            _ => None,
        };
        Ok(Self {
            machine,
            kind: kind.get(),
            directory_table: raw.directory_table.get(),
            registers,
            windows: windows(
                raw.minor.get(),
                raw.processors.get(),
                [raw.debugger_data, raw.loaded_modules, raw.active_processes, raw.pfn_database].map(word),
                (raw.bug_check.get(), raw.parameters.map(U64::get)),
                word(time),
            ),
            runs: listed(runs.count.get(), &runs.runs.map(|run| run.map(U64::get))),
            body: BODY,
            wide: true,
        })
    }

    fn read_32(view: &View<'_>) -> Result<Self> {
        const BODY: u64 = 0x1000;
        if view.size() < BODY {
            return Err(view.ends_early(0, BODY, "the header"));
        }
        let raw: Header32 = view.read(0, "the header")?;
        if raw.machine.get() != I386 {
            return Err(unknown_machine(view, raw.machine.get()));
        }
        let runs: Runs32 = view.read(0x64, "the list of memory")?;
        let kind: U32 = view.read(0xf88, "the kind of dump")?;
        let time: U64 = view.read(0xfc0, "the system time")?;
        let mut registers = X86Registers::default();
        registers.cr3 = Some(raw.directory_table.get().into());
        // CONTEXT, x86: Eip, Esp.
        registers.rip = short(view.read(0x320 + 0xb8, "the context")?);
        registers.rsp = short(view.read(0x320 + 0xc4, "the context")?);
        // Before Windows 2000 there was no kind: all dumps were complete ones.
        let kind = if kind.get() == UNSET_32 { super::FULL } else { kind.get() };
        let mut facts = windows(
            raw.minor.get(),
            raw.processors.get(),
            [raw.debugger_data, raw.loaded_modules, raw.active_processes, raw.pfn_database].map(short),
            (raw.bug_check.get(), raw.parameters.map(|parameter| parameter.get().into())),
            word(time),
        );
        // 'P' is what the field holds when it was not set.
        facts.pae = Some(raw.pae == 1).filter(|_| raw.pae <= 1);
        Ok(Self {
            machine: MachineKind::X86,
            kind,
            directory_table: raw.directory_table.get().into(),
            registers: Some(registers),
            windows: facts,
            runs: listed(runs.count.get(), &runs.runs.map(|run| run.map(|number| number.get().into()))),
            body: BODY,
            wide: false,
        })
    }
}

/// A field of 64 bits, if it was set.
fn word(field: U64) -> Option<u64> {
    Some(field.get()).filter(|value| !matches!(*value, 0 | UNSET_64))
}

/// A field of 32 bits, if it was set.
fn short(field: U32) -> Option<u64> {
    Some(field.get()).filter(|value| !matches!(*value, 0 | UNSET_32)).map(u64::from)
}

/// The runs in the header; none when the list was not set or cannot be.
fn listed(count: u32, runs: &[[u64; 2]]) -> Vec<[u64; 2]> {
    usize::try_from(count).ok().and_then(|count| runs.get(..count)).unwrap_or_default().to_vec()
}

fn windows(
    build: u32,
    processors: u32,
    [debugger_data, loaded_modules, active_processes, pfn_database]: [Option<u64>; 4],
    (code, parameters): (u32, [u64; 4]),
    time: Option<u64>,
) -> WindowsFacts {
    let mut facts = WindowsFacts::default();
    facts.build = build;
    facts.processors = Some(processors).filter(|count| !matches!(*count, 0 | UNSET_32));
    facts.debugger_data = debugger_data.map(VirtAddr::new);
    facts.loaded_modules = loaded_modules.map(VirtAddr::new);
    facts.active_processes = active_processes.map(VirtAddr::new);
    facts.pfn_database = pfn_database.map(VirtAddr::new);
    facts.bug_check = Some(BugCheck { code, parameters }).filter(|check| !matches!(check.code, 0 | UNSET_32));
    facts.system_time = time;
    facts
}

fn unknown_machine(view: &View<'_>, machine: u32) -> Error {
    Error::Unsupported {
        what: format!("{}: a Windows crash dump of machine {machine:#x}", view.path().display()),
        why: format!("x86 ({I386:#x}), x64 ({AMD64:#x}) and ARM64 ({ARM64:#x}) are known"),
    }
}

/// Checked when compiled: a page holds all that is read of a 32-bit header.
const _: () = assert!(size_of::<Header32>() == 0x64 && size_of::<Header64>() == 0x88 && PAGE == 0x1000);
