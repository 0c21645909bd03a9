//! The header of a Windows crash dump, in both word sizes.
//!
//! Owns: what its fields become. Must not know: where the pages are.
//! Keeps: a field that was not filled in ("PAGE" over and over, or zero) is absent, not a number.
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
use zerocopy::little_endian::{U32, U64};

use super::raw::{
    AMD64, ARM64, Header32, Header64, I386, MAGIC_32, MAGIC_64, PLACES_32, PLACES_64, Runs32, Runs64, UNSET_32,
    UNSET_64,
};
use crate::input::View;

/// What both layouts say.
pub(super) struct Header {
    pub(super) machine: MachineKind,
    pub(super) kind: u32,
    pub(super) directory_table: Option<u64>,
    /// Of the vCPU that wrote the dump.
    pub(super) registers: Option<X86Registers>,
    /// Nothing when nothing of Windows was filled in: the dump of another system.
    pub(super) windows: Option<WindowsFacts>,
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
        let places = PLACES_64;
        if view.size() < places.body {
            return Err(view.ends_early(0, places.body, "the header"));
        }
        let raw: Header64 = view.read(0, "the header")?;
        let machine = match raw.machine.get() {
            AMD64 => MachineKind::X86_64,
            ARM64 => MachineKind::AArch64,
            other => return Err(unknown_machine(view, other)),
        };
        let runs: Runs64 = view.read(places.runs, "the list of memory")?;
        let kind: U32 = view.read(places.kind, "the kind of dump")?;
        let time: U64 = view.read(places.system_time, "the system time")?;
        let directory_table = word(raw.directory_table);
        let registers = match machine {
            MachineKind::X86_64 => {
                let mut registers = X86Registers::default();
                registers.cr3 = directory_table;
                registers.rsp = word(view.read(places.stack_pointer, "the context")?);
                registers.rip = word(view.read(places.instruction_pointer, "the context")?);
                Some(registers)
            }
            _ => None,
        };
        Ok(Self {
            machine,
            kind: kind.get(),
            directory_table,
            registers: registers.filter(|registers| *registers != X86Registers::default()),
            windows: windows(
                raw.minor.get(),
                raw.processors.get(),
                [raw.debugger_data, raw.loaded_modules, raw.active_processes, raw.pfn_database].map(word),
                (raw.bug_check.get(), raw.parameters.map(U64::get)),
                word(time),
            ),
            runs: listed(runs.count.get(), &runs.runs.map(|run| run.map(U64::get))),
            body: places.body,
            wide: true,
        })
    }

    fn read_32(view: &View<'_>) -> Result<Self> {
        let places = PLACES_32;
        if view.size() < places.body {
            return Err(view.ends_early(0, places.body, "the header"));
        }
        let raw: Header32 = view.read(0, "the header")?;
        if raw.machine.get() != I386 {
            return Err(unknown_machine(view, raw.machine.get()));
        }
        let runs: Runs32 = view.read(places.runs, "the list of memory")?;
        let kind: U32 = view.read(places.kind, "the kind of dump")?;
        let time: U64 = view.read(places.system_time, "the system time")?;
        let directory_table = short(raw.directory_table);
        let mut registers = X86Registers::default();
        registers.cr3 = directory_table;
        registers.rip = short(view.read(places.instruction_pointer, "the context")?);
        registers.rsp = short(view.read(places.stack_pointer, "the context")?);
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
        if let Some(facts) = &mut facts {
            facts.pae = Some(raw.pae == 1).filter(|_| raw.pae <= 1);
        }
        Ok(Self {
            machine: MachineKind::X86,
            kind,
            directory_table,
            registers: Some(registers).filter(|registers| *registers != X86Registers::default()),
            windows: facts,
            runs: listed(runs.count.get(), &runs.runs.map(|run| run.map(|number| number.get().into()))),
            body: places.body,
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
) -> Option<WindowsFacts> {
    let mut facts = WindowsFacts::default();
    facts.build = if build == UNSET_32 { 0 } else { build };
    facts.debugger_data = debugger_data.map(VirtAddr::new);
    facts.loaded_modules = loaded_modules.map(VirtAddr::new);
    facts.active_processes = active_processes.map(VirtAddr::new);
    facts.pfn_database = pfn_database.map(VirtAddr::new);
    facts.bug_check = Some(BugCheck { code, parameters }).filter(|check| !matches!(check.code, 0 | UNSET_32));
    facts.system_time = time;
    if facts == WindowsFacts::default() {
        return None;
    }
    facts.processors = Some(processors).filter(|count| !matches!(*count, 0 | UNSET_32));
    Some(facts)
}

fn unknown_machine(view: &View<'_>, machine: u32) -> Error {
    Error::Unsupported {
        what: format!("{}: a Windows crash dump of machine {machine:#x}", view.path().display()),
        why: format!("x86 ({I386:#x}), x64 ({AMD64:#x}) and ARM64 ({ARM64:#x}) are known"),
    }
}
