//! Physical memory of the other side.
//!
//! Owns: the checks of what a target says it holds, batches in the ABI's form, and its direct map as ours.
//! Must not know: page tables, operating systems.
//! Keeps: with a direct map the other side is not called for reads at all; without one, once per batch. What is kept beside live
//! memory is kept by the host, which all writes pass through: a plugin would not hear of the host's.

use std::{
    ffi::c_void,
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use memflow_abi::{
    DirectMap as DirectMapWire, Facts, Memory, MemoryInfo, MemoryTable, ReadOp, Run as RunWire, RunSink, WriteOp,
    liveness, machine,
};
use smallvec::SmallVec;

use super::{
    control::Controlled,
    handle::{Handle, broken, required},
};
use crate::{
    address::{Address, PhysAddr, PhysRange},
    error::{Reason, Result},
    memory::{
        Backing, Control, DirectMap, DirectRegion, Liveness, LookasideLayer, MachineKind, Metadata, Outcome, PhysRead,
        PhysWrite, PhysicalMemory, Run, RunMap, TargetFacts, finish_reads, finish_writes,
    },
    plugin::wire::{header, outcome, raw, registers},
};

/// A table's function that reads.
pub(super) type ReadFn = unsafe extern "C" fn(*mut c_void, *mut ReadOp, usize) -> i32;
/// A table's function that writes.
pub(super) type WriteFn = unsafe extern "C" fn(*mut c_void, *mut WriteOp, usize) -> i32;
type RunsFn = unsafe extern "C" fn(*mut c_void, RunSink);

/// Memory of the other side.
struct Foreign {
    who: String,
    handle: Arc<Handle>,
    read: ReadFn,
    write: Option<WriteFn>,
    populated_runs: Option<RunsFn>,
    excluded_runs: Option<RunsFn>,
    metadata: Metadata,
    facts: TargetFacts,
    direct: Option<DirectMap>,
    control: Option<Controlled>,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("name", &self.metadata.name).finish_non_exhaustive()
    }
}

/// Takes over a handle of memory. `who` is the plugin, for messages.
///
/// # Errors
/// What is wrong with the handle or with what it says of itself.
///
/// # Safety
/// The handle is one that the ABI says is handed over: its table and everything that its functions return are as described there.
pub(in crate::plugin) unsafe fn memory(source: Memory, who: &str) -> Result<Arc<dyn PhysicalMemory>> {
    // SAFETY: the caller's promise.
    let table = unsafe { raw::structure::<MemoryTable>(source.table) };
    let table = table.ok_or_else(|| broken(who, "the table of its memory cannot be used"))?;
    let drop = required(who, "drop", table.drop)?;
    // SAFETY: the caller's promise: the handle is handed over, and this is its table's function.
    let handle = Arc::new(unsafe { Handle::new(source.context, drop) });
    let read = required(who, "read", table.read)?;
    let info = required(who, "info", table.info)?;
    // SAFETY: a function of the handle's table.
    let info = unsafe { handle.ask::<MemoryInfo>(info) };
    let info = info.ok_or_else(|| broken(who, "its memory does not say what it holds"))?;
    // SAFETY: the caller's promise: what the information points to stays while the handle lives.
    let metadata = unsafe { metadata(&info, table.write.is_some(), who) }?;
    // SAFETY: a function of the handle's table.
    let facts = table.facts.and_then(|facts| unsafe { handle.ask::<Facts>(facts) });
    // SAFETY: the ABI's contract: what the facts point to stays while the handle lives.
    let facts = facts.map(|facts| unsafe { target_facts(&facts, who) }).transpose()?.unwrap_or_default();
    // SAFETY: a function of the handle's table.
    let direct = table.direct_map.and_then(|direct| unsafe { handle.ask::<DirectMapWire>(direct) });
    // SAFETY: the ABI's contract: what the map points to stays while the handle lives.
    let direct = direct.map(|wire| unsafe { direct_map(&wire, &metadata, &handle, who) }).transpose()?;
    // SAFETY: the functions are those of the handle's table.
    let control = unsafe { Controlled::new(&table, &handle, who) }?;
    let memory = Arc::new(Foreign {
        who: who.to_owned(),
        control,
        handle,
        read,
        write: table.write,
        populated_runs: table.populated_runs,
        excluded_runs: table.excluded_runs,
        metadata,
        facts,
        direct,
    });
    let changes = memory.metadata.liveness == Liveness::Live || !memory.metadata.read_only;
    Ok(if changes { memory } else { LookasideLayer::over(memory) })
}

/// # Safety
/// The texts and arrays of `info` are whole.
unsafe fn metadata(info: &MemoryInfo, writes: bool, who: &str) -> Result<Metadata> {
    // SAFETY: the caller's promise.
    let name = unsafe { raw::text(info.name) };
    let name: Arc<str> = match name.as_deref() {
        None | Some("") => who.into(),
        Some(name) => name.into(),
    };
    // SAFETY: the caller's promise.
    let wires = unsafe { raw::list("runs of its memory", info.runs, info.run_count) };
    let wires = wires.map_err(|problem| broken(who, problem))?;
    let runs = wires.iter().map(|wire| run(wire, who)).collect::<Result<Vec<_>>>()?;
    let runs = RunMap::new(runs).map_err(|error| broken(who, error))?;
    Ok(Metadata {
        name,
        runs: Arc::new(runs),
        liveness: liveness_of(info.liveness),
        read_only: info.read_only != 0 || !writes,
        ideal_batch: match usize::try_from(info.ideal_batch) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(operations) => operations,
        },
    })
}

/// Live unless it is said to be frozen: that is the careful choice.
fn liveness_of(number: u32) -> Liveness {
    if number == liveness::FROZEN { Liveness::Frozen } else { Liveness::Live }
}

fn run(wire: &RunWire, who: &str) -> Result<Run> {
    let start = PhysAddr::new(wire.start);
    let range = PhysRange::new(start, wire.len).ok_or_else(|| {
        broken(who, format_args!("a run of {:#x} bytes at {start} leaves the address space", wire.len))
    })?;
    Ok(Run { range, offset: wire.offset })
}

/// # Safety
/// The texts and arrays of `wire` are whole.
unsafe fn target_facts(wire: &Facts, who: &str) -> Result<TargetFacts> {
    // SAFETY: the caller's promise.
    let vcpus = unsafe { raw::list("registers of its vCPUs", wire.x86_vcpus, wire.x86_vcpu_count) };
    let x86 = vcpus.map_err(|problem| broken(who, problem))?;
    // SAFETY: the caller's promise.
    let vcpus = unsafe { raw::list("registers of its vCPUs", wire.aarch64_vcpus, wire.aarch64_vcpu_count) };
    let aarch64 = vcpus.map_err(|problem| broken(who, problem))?;
    // SAFETY: the caller's promise.
    let vmcoreinfo = unsafe { raw::list("bytes of its VMCOREINFO", wire.vmcoreinfo.ptr, wire.vmcoreinfo.len) };
    let vmcoreinfo = vmcoreinfo.map_err(|problem| broken(who, problem))?;
    // SAFETY: the caller's promise.
    let header = unsafe {
        raw::list("what the header of its dump says", wire.dump_header, usize::from(!wire.dump_header.is_null()))
    };
    let header = header.map_err(|problem| broken(who, problem))?;
    let (directory_table, windows) = header.first().map(header::from_wire).unwrap_or_default();
    Ok(TargetFacts {
        machine: match wire.machine {
            machine::X86 => Some(MachineKind::X86),
            machine::X86_64 => Some(MachineKind::X86_64),
            machine::AARCH64 => Some(MachineKind::AArch64),
            _ => None,
        },
        vcpus: x86
            .iter()
            .map(registers::x86_from_wire)
            .chain(aarch64.iter().map(registers::aarch64_from_wire))
            .collect(),
        vmcoreinfo: (!wire.vmcoreinfo.ptr.is_null()).then(|| vmcoreinfo.to_vec()),
        directory_table,
        windows,
    })
}

/// Keeps the other side's bytes where they are.
struct Mapped {
    #[expect(dead_code, reason = "the bytes stay for as long as the handle lives")]
    handle: Arc<Handle>,
    // INVARIANT: null, or an aligned number that stays for as long as the handle lives.
    lost_from: *const AtomicU64,
}

// SAFETY: the number is atomic, and the handle may be shared.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

// SAFETY: the ABI's contract: the bytes stay at their place until the last handle is dropped, and so does the number.
unsafe impl Backing for Mapped {
    fn lost_from(&self) -> Option<&AtomicU64> {
        // SAFETY: null or there (INVARIANT).
        unsafe { self.lost_from.as_ref() }
    }
}

/// # Safety
/// The arrays of `wire` are whole, and the memory that it describes is as the ABI says while the handle lives.
unsafe fn direct_map(wire: &DirectMapWire, metadata: &Metadata, handle: &Arc<Handle>, who: &str) -> Result<DirectMap> {
    // SAFETY: the caller's promise.
    let list = unsafe { raw::list("regions of its direct map", wire.regions, wire.region_count) };
    let wires = list.map_err(|problem| broken(who, problem))?;
    let mut regions = Vec::with_capacity(wires.len());
    for wire in wires {
        let region = run(&RunWire { start: wire.start, len: wire.len, offset: wire.offset }, who)?;
        let first = wire.pointer.addr();
        let fits =
            usize::try_from(wire.len).is_ok_and(|len| isize::try_from(len).is_ok() && first.checked_add(len).is_some());
        if first == 0 || !fits || wire.offset.checked_add(wire.len).is_none() {
            return Err(broken(who, format_args!("the bytes of {} cannot lie where it says", region.range)));
        }
        regions.push(DirectRegion { range: region.range, ptr: wire.pointer, offset: wire.offset });
    }
    regions.sort_by_key(|region| region.range.start());
    if let Some(hole) = metadata.runs.runs().iter().find(|run| !covered(run.range, &regions)) {
        return Err(broken(who, format_args!("its direct map does not hold all of {}", hole.range)));
    }
    if !wire.lost_from.cast::<AtomicU64>().is_aligned() {
        return Err(broken(who, "the place where it notes lost bytes is misaligned"));
    }
    let backing = Arc::new(Mapped { handle: handle.clone(), lost_from: wire.lost_from.cast() });
    // SAFETY: the caller's promise: the regions are readable, writable if so marked, and still if so marked, until the handle, which the
    // backing keeps, is dropped; nothing in this process refers to them.
    let map = unsafe { DirectMap::new(regions, liveness_of(wire.liveness), wire.writable != 0, backing) };
    map.map_err(|error| broken(who, error))
}

/// True when regions, sorted by address, hold every byte of `range`.
fn covered(range: PhysRange, regions: &[DirectRegion]) -> bool {
    let mut next = range.start();
    for region in regions {
        if region.range.contains(next) {
            match (region.range.last(), range.last()) {
                (Some(end), Some(last)) if end < last => next = end.wrapping_add(1),
                _ => return true,
            }
        }
    }
    range.is_empty()
}

impl PhysicalMemory for Foreign {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        match &self.direct {
            Some(map) => map.read_batch(&self.metadata.name, ops),
            None => {
                // SAFETY: a function of the handle's table with its context.
                unsafe { read_ops(self.read, self.handle.context(), ops) };
                finish_reads(&self.who, ops)
            }
        }
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        match (&self.direct, self.write) {
            _ if self.metadata.read_only => refuse(ops),
            (Some(map), _) if map.is_writable() => return map.write_batch(&self.metadata.name, ops),
            // SAFETY: a function of the handle's table with its context.
            (_, Some(write)) => unsafe { write_ops(write, self.handle.context(), ops) },
            (_, None) => refuse(ops),
        }
        finish_writes(&self.who, ops)
    }

    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn populated_runs(&self) -> Arc<RunMap> {
        // Bytes that look empty and are not would be missed; looking at all of them never is wrong.
        self.populated_runs.and_then(|told| self.ask_runs(told)).unwrap_or_else(|| self.metadata.runs.clone())
    }

    fn excluded_runs(&self) -> Arc<RunMap> {
        let Some(told) = self.excluded_runs else { return Arc::default() };
        self.ask_runs(told).unwrap_or_else(|| {
            log::warn!(
                "{}: what it says was left out of {} makes no sense and is not used",
                self.who,
                self.metadata.name
            );
            Arc::default()
        })
    }

    fn direct_map(&self) -> Option<&DirectMap> {
        self.direct.as_ref()
    }

    fn facts(&self) -> &TargetFacts {
        &self.facts
    }

    fn control(&self) -> Option<&dyn Control> {
        self.control.as_ref().map(|control| control as &dyn Control)
    }
}

impl Foreign {
    /// The runs that a function of the table tells; nothing if they cannot be.
    fn ask_runs(&self, function: RunsFn) -> Option<Arc<RunMap>> {
        let mut found = Found { runs: Vec::new(), sound: true };
        let sink = RunSink { context: (&raw mut found).cast(), run: Some(take_run) };
        // SAFETY: a function of the handle's table with its context.
        unsafe { function(self.handle.context(), sink) };
        RunMap::new(found.runs).ok().filter(|_| found.sound).map(Arc::new)
    }
}

/// Most runs that are taken; a list that is longer is not used.
const MAX_RUNS: usize = 1 << 21;

/// Runs that have come so far.
struct Found {
    runs: Vec<Run>,
    sound: bool,
}

unsafe extern "C" fn take_run(context: *mut c_void, wire: RunWire) -> i32 {
    // SAFETY: the context is the one that `ask_runs` gave, used by one call at a time.
    let found = unsafe { &mut *context.cast::<Found>() };
    match PhysRange::new(PhysAddr::new(wire.start), wire.len) {
        Some(range) if found.runs.len() < MAX_RUNS => {
            found.runs.push(Run { range, offset: wire.offset });
            0
        }
        _ => {
            found.sound = false;
            1
        }
    }
}

pub(super) fn refuse<A>(ops: &mut [crate::memory::WriteOp<'_, A>]) {
    for op in ops {
        op.outcome = Outcome::Failed { offset: 0, reason: Reason::ReadOnly };
    }
}

/// Operations that most batches do not exceed: they need no allocation.
const FEW: usize = 8;

const UNTRIED: memflow_abi::Outcome =
    memflow_abi::Outcome { status: 0, level: 0, cause: 0, os_error: 0, offset: 0, address: 0, entry: 0 };

/// Carries out reads by a function of the other side, in one call. When that fails, operations are left without an outcome.
///
/// # Safety
/// The function can be called with the context.
pub(super) unsafe fn read_ops<A: Address>(
    read: ReadFn,
    context: *mut c_void,
    ops: &mut [crate::memory::ReadOp<'_, A>],
) {
    if ops.is_empty() {
        return;
    }
    let wire = |op: &mut crate::memory::ReadOp<'_, A>| ReadOp {
        address: op.addr.to_u64(),
        buffer: op.buf.as_mut_ptr(),
        len: op.buf.len(),
        outcome: UNTRIED,
    };
    let mut wires: SmallVec<[ReadOp; FEW]> = ops.iter_mut().map(wire).collect();
    // SAFETY: the caller's promise; the operations and their buffers are the callee's for the call.
    let status = unsafe { read(context, wires.as_mut_ptr(), wires.len()) };
    for (op, wire) in ops.iter_mut().zip(&wires) {
        op.outcome = settled(status, &wire.outcome, op.buf.len());
    }
}

/// Carries out writes by a function of the other side, in one call. When that fails, operations are left without an outcome.
///
/// # Safety
/// The function can be called with the context.
pub(super) unsafe fn write_ops<A: Address>(
    write: WriteFn,
    context: *mut c_void,
    ops: &mut [crate::memory::WriteOp<'_, A>],
) {
    if ops.is_empty() {
        return;
    }
    let wire = |op: &crate::memory::WriteOp<'_, A>| WriteOp {
        address: op.addr.to_u64(),
        buffer: op.buf.as_ptr(),
        len: op.buf.len(),
        outcome: UNTRIED,
    };
    let mut wires: SmallVec<[WriteOp; FEW]> = ops.iter().map(wire).collect();
    // SAFETY: the caller's promise; the operations are the callee's for the call, and the buffers are readable.
    let status = unsafe { write(context, wires.as_mut_ptr(), wires.len()) };
    for (op, wire) in ops.iter_mut().zip(&wires) {
        op.outcome = settled(status, &wire.outcome, op.buf.len());
    }
}

/// The outcome of an operation of `len` bytes. A call that failed as a whole settles nothing, whatever its operations say.
fn settled(status: i32, wire: &memflow_abi::Outcome, len: usize) -> Outcome {
    match outcome::from_wire(wire) {
        _ if status != 0 => Outcome::NotAttempted,
        // No byte behind the operation can be the first that failed.
        Outcome::Failed { offset, reason } => {
            let last = u64::try_from(len).unwrap_or(u64::MAX).saturating_sub(1);
            Outcome::Failed { offset: offset.min(last), reason }
        }
        outcome => outcome,
    }
}
