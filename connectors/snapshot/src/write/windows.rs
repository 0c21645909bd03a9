//! Windows crash dumps, complete ones: for x86-64 and for 32-bit x86.
//!
//! ```text
//! 32-bit  64-bit
//! 0       0        header    what is known of the machine, and the runs of its memory
//!                  type 1:   the pages of the runs, one after the other
//! 0x1000  0x2000   type 5:   bitmap of the pages that follow
//! ```
//!
//! Owns: which type is written, and what is in the header. Must not know: files, compression.
//! Keeps: a field of which nothing is known stays as Windows leaves one that it does not set, "PAGE" over and over, and is told; nothing is
//! made up but zeros in general registers, which no dump tells.

use memflow_core::{
    Error, PhysRange, Result, VirtAddr,
    memory::{MachineKind, VcpuRegisters, WindowsFacts, X86Registers},
};
use zerocopy::{FromBytes, IntoBytes, little_endian::U32};

use super::{
    bits::{MAX_BITMAP, bitmap},
    source::{Source, joined},
    stream::Item,
};
use crate::crash_dump::raw;

/// Most runs of a dump of type 1: what LeechCore takes. Windows itself has room for [`raw::MAX_RUNS_64`], which a bitmap takes the place of.
const MAX_RUNS: usize = 32;
/// `MajorVersion` of a Windows that is not a checked build.
const FREE_BUILD: u32 = 15;
/// `CONTEXT_CONTROL` of either architecture: stack pointer and instruction pointer are set.
const CONTEXT_CONTROL_64: u32 = 0x10_0001;
const CONTEXT_CONTROL_32: u32 = 0x1_0001;
/// Lengths of `CONTEXT`.
const CONTEXT_LEN_64: usize = 0x4d0;
const CONTEXT_LEN_32: usize = 0x2cc;
/// CR4.PAE.
const CR4_PAE: u64 = 1 << 5;

/// A crash dump.
pub(super) struct CrashDump {
    pub(super) items: Vec<Item>,
    /// Fields of the header of which the target tells nothing.
    pub(super) unknown: Vec<&'static str>,
}

/// True when the format tells what the source left out from memory that never was.
pub(super) fn tells_left_out(source: &Source<'_>) -> bool {
    let wide = source.facts().machine == Some(MachineKind::X86_64);
    machine_runs(source).len() <= if wide { raw::MAX_RUNS_64 } else { raw::MAX_RUNS_32 }
}

/// The parts of the file.
///
/// # Errors
/// [`Error::Unsupported`] for other machines than the format has, and for memory that is not made of pages or too far apart.
pub(super) fn items(source: &Source<'_>) -> Result<CrashDump> {
    let wide = match source.facts().machine {
        Some(MachineKind::X86_64) => true,
        Some(MachineKind::X86) => false,
        machine => {
            let of =
                machine.map_or("a machine that the target does not tell".to_owned(), |machine| format!("{machine:?}"));
            return Err(Error::Unsupported {
                what: format!("a Windows crash dump of {of}"),
                why: "it is written for x86 and x86-64; LiME and ELF are for any machine".to_owned(),
            });
        }
    };
    let most = if wide { MAX_BITMAP * 8 } else { u32::MAX.into() };
    let pages = source.whole_pages("a Windows crash dump", raw::PAGE, most)?;
    let stretches = source.stretches();
    let ranges: Vec<PhysRange> = stretches.iter().map(|stretch| stretch.range).collect();
    let places = if wide { raw::PLACES_64 } else { raw::PLACES_32 };
    let total = ranges.iter().map(|range| range.len()).sum::<u64>();
    let told = if source.gaps.is_none() { machine_runs(source) } else { ranges.clone() };
    let full = told == ranges && ranges.len() <= MAX_RUNS;
    let mut body = Vec::new();
    let mut pages_at = places.body;
    if !full {
        let len = pages.div_ceil(8);
        pages_at = (places.body + raw::BITMAP_BITS + len).next_multiple_of(raw::PAGE);
        let mut head = raw::BITMAP_MAGIC.to_vec();
        head.resize(raw::BITMAP_FIELDS as usize, 0);
        let fields =
            raw::BitmapFields { first_page: pages_at.into(), pages: (total / raw::PAGE).into(), bits: pages.into() };
        head.extend(fields.as_bytes());
        body.push(Item::Bytes(head));
        body.extend(bitmap(&ranges, raw::PAGE, len));
        body.push(Item::Zeros(pages_at - places.body - raw::BITMAP_BITS - len));
    }
    let shape = Shape {
        wide,
        kind: if full { raw::FULL } else { raw::BITMAP_FULL },
        runs: told.iter().map(|range| [range.start().as_u64() / raw::PAGE, range.len() / raw::PAGE]).collect(),
        length: pages_at + total,
    };
    let mut known = Known::new(source);
    let header = if wide { known.header_64(&shape) } else { known.header_32(&shape) };
    let items = std::iter::once(Item::Bytes(header)).chain(body);
    Ok(CrashDump {
        items: items.chain(stretches.into_iter().flat_map(|stretch| stretch.items)).collect(),
        unknown: known.unknown,
    })
}

/// The memory that the machine has, with what the source left out of it.
fn machine_runs(source: &Source<'_>) -> Vec<PhysRange> {
    joined(source.ranges.iter().chain(&source.excluded).copied())
}

/// What does not depend on the machine.
struct Shape {
    wide: bool,
    kind: u32,
    /// First page and number of pages.
    runs: Vec<[u64; 2]>,
    length: u64,
}

/// What is known of the machine, and what is not.
struct Known {
    vcpus: usize,
    registers: X86Registers,
    directory_table: Option<u64>,
    windows: Option<WindowsFacts>,
    unknown: Vec<&'static str>,
}

impl Known {
    fn new(source: &Source<'_>) -> Self {
        let facts = source.facts();
        let vcpus: Vec<X86Registers> = facts
            .vcpus
            .iter()
            .filter_map(|vcpu| match vcpu {
                VcpuRegisters::X86(registers) => Some(*registers),
                _ => None,
            })
            .collect();
        // A vCPU in the kernel has page tables with all of the kernel in them; where those of processes have not, that matters.
        let kernel = if facts.machine == Some(MachineKind::X86) { 1 << 31 } else { 1 << 63 };
        let in_kernel = vcpus.iter().find(|registers| registers.rip.is_some_and(|rip| rip >= kernel));
        let registers = in_kernel.or(vcpus.first()).copied().unwrap_or_default();
        Self {
            vcpus: vcpus.len(),
            registers,
            directory_table: facts.directory_table.or(registers.cr3),
            windows: facts.windows,
            unknown: Vec::new(),
        }
    }

    /// The value of a field, or what stands for none.
    fn value(&mut self, name: &'static str, value: Option<u64>) -> u64 {
        value.unwrap_or_else(|| {
            self.unknown.push(name);
            raw::UNSET_64
        })
    }

    /// As [`value`](Self::value), of half the width.
    fn short(&mut self, name: &'static str, value: Option<u64>) -> u32 {
        // What stands for none is the same in both halves.
        self.value(name, value) as u32
    }

    fn address(&mut self, name: &'static str, of: impl Fn(&WindowsFacts) -> Option<VirtAddr>) -> u64 {
        let address = self.windows.as_ref().and_then(of);
        self.value(name, address.map(VirtAddr::as_u64))
    }

    /// `MajorVersion` and `MinorVersion`.
    fn version(&mut self) -> [U32; 2] {
        let build = self.windows.map(|windows| u64::from(windows.build));
        let major = if build.is_some() { FREE_BUILD } else { raw::UNSET_32 };
        [major.into(), self.short("MinorVersion", build).into()]
    }

    fn processors(&mut self) -> U32 {
        let told = self.windows.and_then(|windows| windows.processors).map(u64::from);
        let counted = Some(self.vcpus as u64).filter(|count| *count > 0);
        self.short("NumberProcessors", told.or(counted)).into()
    }

    fn header_64(&mut self, shape: &Shape) -> Vec<u8> {
        let mut out = unset(raw::PLACES_64.body);
        let mut header = unset_fields::<raw::Header64>();
        header.signature.copy_from_slice(raw::MAGIC_64);
        [header.major, header.minor] = self.version();
        header.directory_table = self.value("DirectoryTableBase", self.directory_table).into();
        header.pfn_database = self.address("PfnDataBase", |windows| windows.pfn_database).into();
        header.loaded_modules = self.address("PsLoadedModuleList", |windows| windows.loaded_modules).into();
        header.active_processes = self.address("PsActiveProcessHead", |windows| windows.active_processes).into();
        header.machine = raw::AMD64.into();
        header.processors = self.processors();
        let stop = self.windows.and_then(|windows| windows.bug_check);
        header.bug_check = self.short("BugCheckCode", stop.map(|stop| stop.code.into())).into();
        if let Some(stop) = stop {
            header.parameters = stop.parameters.map(Into::into);
        }
        header.debugger_data = self.address("KdDebuggerDataBlock", |windows| windows.debugger_data).into();
        put(&mut out, 0, header.as_bytes());
        if shape.runs.len() <= raw::MAX_RUNS_64 {
            let mut list = unset_fields::<raw::Runs64>();
            list.count = (shape.runs.len() as u32).into();
            list.pages = shape.runs.iter().map(|[_, count]| count).sum::<u64>().into();
            list.runs.iter_mut().zip(&shape.runs).for_each(|(to, run)| *to = run.map(Into::into));
            put(&mut out, raw::PLACES_64.runs, list.as_bytes());
        }
        self.rest(&mut out, shape);
        out
    }

    fn header_32(&mut self, shape: &Shape) -> Vec<u8> {
        let mut out = unset(raw::PLACES_32.body);
        let mut header = unset_fields::<raw::Header32>();
        header.signature.copy_from_slice(raw::MAGIC_32);
        [header.major, header.minor] = self.version();
        // Addresses and registers of a 32-bit machine.
        header.directory_table = self.short("DirectoryTableBase", self.directory_table).into();
        header.pfn_database = (self.address("PfnDataBase", |windows| windows.pfn_database) as u32).into();
        header.loaded_modules = (self.address("PsLoadedModuleList", |windows| windows.loaded_modules) as u32).into();
        header.active_processes =
            (self.address("PsActiveProcessHead", |windows| windows.active_processes) as u32).into();
        header.machine = raw::I386.into();
        header.processors = self.processors();
        let stop = self.windows.and_then(|windows| windows.bug_check);
        header.bug_check = self.short("BugCheckCode", stop.map(|stop| stop.code.into())).into();
        if let Some(stop) = stop {
            header.parameters = stop.parameters.map(|parameter| (parameter as u32).into());
        }
        let told = self.windows.and_then(|windows| windows.pae);
        match told.or(self.registers.cr4.map(|cr4| cr4 & CR4_PAE != 0)) {
            Some(pae) => header.pae = pae.into(),
            None => self.unknown.push("PaeEnabled"),
        }
        header.debugger_data = (self.address("KdDebuggerDataBlock", |windows| windows.debugger_data) as u32).into();
        put(&mut out, 0, header.as_bytes());
        if shape.runs.len() <= raw::MAX_RUNS_32 {
            let mut list = unset_fields::<raw::Runs32>();
            // Pages of which 32 bits count all.
            list.count = (shape.runs.len() as u32).into();
            list.pages = (shape.runs.iter().map(|[_, count]| count).sum::<u64>() as u32).into();
            list.runs.iter_mut().zip(&shape.runs).for_each(|(to, run)| *to = run.map(|number| (number as u32).into()));
            put(&mut out, raw::PLACES_32.runs, list.as_bytes());
        }
        self.rest(&mut out, shape);
        out
    }

    /// What lies behind the list of runs, with the same fields in either width.
    fn rest(&mut self, out: &mut [u8], shape: &Shape) {
        let (places, len, flags) = match shape.wide {
            true => (raw::PLACES_64, CONTEXT_LEN_64, CONTEXT_CONTROL_64),
            false => (raw::PLACES_32, CONTEXT_LEN_32, CONTEXT_CONTROL_32),
        };
        let (rip, rsp) = (self.registers.rip, self.registers.rsp);
        if rip.is_some() || rsp.is_some() {
            put(out, places.context, &vec![0; len]);
            put(out, places.context_flags, &flags.to_le_bytes());
        }
        for (place, name, value) in [(places.instruction_pointer, "Rip", rip), (places.stack_pointer, "Rsp", rsp)] {
            let value = self.value(name, value).to_le_bytes();
            put(out, place, if shape.wide { &value } else { &value[..4] });
        }
        put(out, places.kind, &shape.kind.to_le_bytes());
        put(out, raw::LENGTH, &shape.length.to_le_bytes());
        let time = self.value("SystemTime", self.windows.and_then(|windows| windows.system_time));
        put(out, places.system_time, &time.to_le_bytes());
    }
}

/// A header in which nothing is set.
fn unset(len: u64) -> Vec<u8> {
    raw::UNSET_32.to_le_bytes().into_iter().cycle().take(len as usize).collect()
}

/// A structure in which nothing is set.
fn unset_fields<T: FromBytes + IntoBytes>() -> T {
    let mut fields = T::new_zeroed();
    let unset = raw::UNSET_32.to_le_bytes().into_iter().cycle();
    fields.as_mut_bytes().iter_mut().zip(unset).for_each(|(to, from)| *to = from);
    fields
}

/// Writes over a part of the header, which every place lies in.
fn put(out: &mut [u8], at: u64, bytes: &[u8]) {
    if let Some(part) = out.get_mut(at as usize..at as usize + bytes.len()) {
        part.copy_from_slice(bytes);
    }
}
