//! Physical memory behind the C interface.
//!
//! Must not know: page tables, operating systems.

use std::{
    ffi::c_void,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use memflow_abi::{
    AArch64Vcpu, DirectMap as DirectMapWire, DirectRegion, DumpHeader, Facts, Grows, Memory, MemoryInfo, MemoryTable,
    ReadOp, Run, RunSink, Text, WriteOp, X86Vcpu, liveness, machine,
};
use smallvec::SmallVec;

use super::{control, guard, shared};
use crate::{
    error::{Reason, Result},
    memory::{Liveness, MachineKind, Metadata, Outcome, PhysicalMemory, RunMap, TargetFacts, VcpuRegisters},
    plugin::wire::{header, outcome, raw, registers},
};

static TABLE: MemoryTable = table();

/// Of memory whose target can be controlled.
static CONTROLLED: MemoryTable = {
    let mut table = table();
    table.run_state = Some(control::run_state);
    table.pause = Some(control::pause);
    table.resume = Some(control::resume);
    table.registers = Some(control::registers);
    table
};

const fn table() -> MemoryTable {
    let mut table = MemoryTable::empty();
    table.clone = Some(shared::clone::<Exported>);
    table.drop = Some(shared::drop_handle::<Exported>);
    table.read = Some(read);
    table.write = Some(write);
    table.info = Some(info);
    table.facts = Some(facts);
    table.direct_map = Some(direct_map);
    table.populated_runs = Some(populated_runs);
    table.excluded_runs = Some(excluded_runs);
    table
}

/// Memory with what is handed out of it by pointer. A handle's context is an `Arc` of this.
pub(super) struct Exported {
    pub(super) memory: Arc<dyn PhysicalMemory>,
    metadata: Metadata,
    runs: Vec<Run>,
    target: TargetFacts,
    x86_vcpus: Vec<X86Vcpu>,
    aarch64_vcpus: Vec<AArch64Vcpu>,
    header: Option<DumpHeader>,
    regions: Vec<DirectRegion>,
    mapped: Option<Mapped>,
    // INVARIANT: these point into the fields above, which never change, and into the direct map of `memory`.
    info: OnceLock<MemoryInfo>,
    facts: OnceLock<Facts>,
    direct: OnceLock<DirectMapWire>,
}

/// What a direct map says beside its regions.
struct Mapped {
    liveness: Liveness,
    writable: bool,
    lost_from: *const AtomicU64,
}

// SAFETY: the pointers in it lead to its own fields, which never change, and to a direct map, which is `Sync` itself.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

/// A handle of memory for the other side. Everything that stays the same is asked for here, where a panic is a failure of whoever
/// hands the memory over; the functions that tell it have no place for one.
pub(in crate::plugin) fn memory(memory: Arc<dyn PhysicalMemory>) -> Memory {
    let metadata = memory.metadata();
    let target = memory.facts().clone();
    let map = memory.direct_map();
    let mapped =
        map.map(|map| Mapped { liveness: map.liveness(), writable: map.is_writable(), lost_from: map.lost_from() });
    let (mut x86_vcpus, mut aarch64_vcpus) = (Vec::new(), Vec::new());
    for vcpu in &target.vcpus {
        match vcpu {
            VcpuRegisters::X86(registers) => x86_vcpus.push(registers::x86_to_wire(registers)),
            VcpuRegisters::AArch64(registers) => aarch64_vcpus.push(registers::aarch64_to_wire(registers)),
        }
    }
    let functions = if memory.control().is_some() { &CONTROLLED } else { &TABLE };
    let exported = Exported {
        runs: runs(&metadata.runs),
        x86_vcpus,
        aarch64_vcpus,
        header: header::to_wire(&target),
        target,
        regions: map.map(|map| map.regions().iter().map(region).collect()).unwrap_or_default(),
        mapped,
        metadata,
        memory,
        info: OnceLock::new(),
        facts: OnceLock::new(),
        direct: OnceLock::new(),
    };
    Memory { context: shared::context(Arc::new(exported)), table: Grows::new(functions) }
}

fn runs(map: &RunMap) -> Vec<Run> {
    let run =
        |run: &crate::memory::Run| Run { start: run.range.start().as_u64(), len: run.range.len(), offset: run.offset };
    map.runs().iter().map(run).collect()
}

fn region(region: &crate::memory::DirectRegion) -> DirectRegion {
    DirectRegion {
        start: region.range.start().as_u64(),
        len: region.range.len(),
        pointer: region.ptr,
        offset: region.offset,
    }
}

unsafe extern "C" fn read(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the operations are the callee's for the call.
    let Some(ops) = (unsafe { raw::items_mut(ops, count) }) else { return i32::from(count != 0) };
    // SAFETY: the ABI's contract: the buffers are the callee's for the call.
    unsafe { read_ops(ops, |native| exported.memory.read_batch(native)) };
    0
}

unsafe extern "C" fn write(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the operations are the callee's for the call.
    let Some(ops) = (unsafe { raw::items_mut(ops, count) }) else { return i32::from(count != 0) };
    // SAFETY: the ABI's contract: the buffers are readable for the call.
    unsafe { write_ops(ops, |native| exported.memory.write_batch(native)) };
    0
}

/// Operations that most batches do not exceed: they need no allocation.
const FEW: usize = 8;

/// Carries out reads of the other side by `run`, and records their outcomes. After a panic nobody knows which of them are true.
///
/// # Safety
/// The buffer of each operation is ours alone for the call.
pub(super) unsafe fn read_ops<A: crate::address::Address>(
    ops: &mut [ReadOp],
    run: impl FnOnce(&mut [crate::memory::ReadOp<'_, A>]) -> Result<()>,
) {
    let mut native = SmallVec::<[_; FEW]>::with_capacity(ops.len());
    for op in &*ops {
        // SAFETY: the caller's promise.
        let buffer = unsafe { raw::buffer_mut(op.buffer, op.len) };
        // A buffer that cannot be is left without an outcome, which the other side takes for what it is: a broken contract.
        native.push(crate::memory::ReadOp::new(A::from_u64(op.address), buffer.unwrap_or_default()));
    }
    let called = called(|| run(&mut native));
    let all_done = native.iter().all(|op| op.outcome.is_done());
    for (op, native) in ops.iter_mut().zip(&native) {
        let whole = native.buf.len() == op.len;
        op.outcome = settled(called, all_done, whole, native.outcome);
    }
}

/// What became of a whole call.
#[derive(Clone, Copy)]
enum Called {
    Well,
    Badly,
    Panicked,
}

fn called(run: impl FnOnce() -> Result<()>) -> Called {
    guard::quietly(Called::Panicked, || match run() {
        Ok(()) => Called::Well,
        // Why is in the outcomes.
        Err(_) => Called::Badly,
    })
}

/// The outcome of an operation for the other side.
fn settled(called: Called, all_done: bool, whole: bool, outcome: Outcome) -> memflow_abi::Outcome {
    outcome::to_wire(match called {
        Called::Panicked => Outcome::Failed { offset: 0, reason: Reason::Panicked },
        // An error without a failed operation: one of the two is not true.
        Called::Badly if all_done => Outcome::NotAttempted,
        _ if whole => outcome,
        _ => Outcome::NotAttempted,
    })
}

/// Carries out writes of the other side by `run`, and records their outcomes, as [`read_ops`].
///
/// # Safety
/// The buffer of each operation is readable and does not change for the call.
pub(super) unsafe fn write_ops<A: crate::address::Address>(
    ops: &mut [WriteOp],
    run: impl FnOnce(&mut [crate::memory::WriteOp<'_, A>]) -> Result<()>,
) {
    let mut native = SmallVec::<[_; FEW]>::with_capacity(ops.len());
    for op in &*ops {
        // SAFETY: the caller's promise.
        let buffer = unsafe { raw::buffer(op.buffer, op.len) };
        native.push(crate::memory::WriteOp::new(A::from_u64(op.address), buffer.unwrap_or_default()));
    }
    let called = called(|| run(&mut native));
    let all_done = native.iter().all(|op| op.outcome.is_done());
    for (op, native) in ops.iter_mut().zip(&native) {
        let whole = native.buf.len() == op.len;
        op.outcome = settled(called, all_done, whole, native.outcome);
    }
}

unsafe extern "C" fn info(context: *mut c_void) -> Grows<MemoryInfo> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    Grows::new(exported.info.get_or_init(|| {
        let Metadata { name, liveness, read_only, ideal_batch, .. } = &exported.metadata;
        let mut info = MemoryInfo::empty();
        info.name = Text::new(name);
        info.runs = exported.runs.as_ptr();
        info.run_count = exported.runs.len();
        info.liveness = liveness_to_wire(*liveness);
        info.read_only = (*read_only).into();
        info.ideal_batch = u64::try_from(*ideal_batch).unwrap_or(u64::MAX);
        info
    }))
}

fn liveness_to_wire(liveness: Liveness) -> u32 {
    match liveness {
        Liveness::Live => liveness::LIVE,
        Liveness::Frozen => liveness::FROZEN,
    }
}

unsafe extern "C" fn facts(context: *mut c_void) -> Grows<Facts> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    Grows::new(exported.facts.get_or_init(|| {
        let TargetFacts { machine, vmcoreinfo, .. } = &exported.target;
        let mut facts = Facts::empty();
        facts.machine = match machine {
            None => machine::UNKNOWN,
            Some(MachineKind::X86) => machine::X86,
            Some(MachineKind::X86_64) => machine::X86_64,
            Some(MachineKind::AArch64) => machine::AARCH64,
        };
        facts.x86_vcpus = exported.x86_vcpus.as_ptr();
        facts.x86_vcpu_count = exported.x86_vcpus.len();
        facts.aarch64_vcpus = exported.aarch64_vcpus.as_ptr();
        facts.aarch64_vcpu_count = exported.aarch64_vcpus.len();
        facts.dump_header = exported.header.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        facts.vmcoreinfo = vmcoreinfo.as_deref().map_or(Text::NONE, Text::bytes);
        facts
    }))
}

unsafe extern "C" fn direct_map(context: *mut c_void) -> Grows<DirectMapWire> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    let Some(mapped) = &exported.mapped else { return Grows::NULL };
    Grows::new(exported.direct.get_or_init(|| {
        let mut wire = DirectMapWire::empty();
        wire.regions = exported.regions.as_ptr();
        wire.region_count = exported.regions.len();
        wire.liveness = liveness_to_wire(mapped.liveness);
        wire.writable = mapped.writable.into();
        wire.lost_from = mapped.lost_from.cast();
        wire
    }))
}

unsafe extern "C" fn populated_runs(context: *mut c_void, sink: RunSink) {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    let Some(take) = sink.run else { return };
    // When they cannot be told, all runs are the answer: nothing that is not empty may look so.
    let found = guard::quietly(None, || Some(runs(&exported.memory.populated_runs())));
    for run in found.as_ref().unwrap_or(&exported.runs) {
        // SAFETY: the ABI's contract: the sink's function can be called with its context for the call.
        if unsafe { take(sink.context, *run) } != 0 {
            break;
        }
    }
}

unsafe extern "C" fn excluded_runs(context: *mut c_void, sink: RunSink) {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    let Some(take) = sink.run else { return };
    for run in guard::quietly(Vec::new(), || runs(&exported.memory.excluded_runs())) {
        // SAFETY: the ABI's contract: the sink's function can be called with its context for the call.
        if unsafe { take(sink.context, run) } != 0 {
            break;
        }
    }
}
