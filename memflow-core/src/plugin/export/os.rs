//! Operating systems behind the C interface.
//!
//! Must not know: any one system.

use std::{
    ffi::c_void,
    sync::{Arc, OnceLock},
};

use memflow_abi::{
    FailureSink, Grows, KernelRecord, Memory, Os as OsHandle, OsTable, Process, ProcessRecord, RecordSink, SpaceRecord,
    Text,
};

use super::{guard, memory::memory, process, space::Space};
use crate::{
    address::VirtAddr,
    os::{KernelInfo, Listing, Os, ProcessInfo},
    plugin::wire::{
        raw,
        records::{self, Record},
    },
};

static TABLE: OsTable = {
    let mut table = OsTable::empty();
    table.clone = Some(clone);
    table.drop = Some(drop_handle);
    table.kernel = Some(kernel);
    table.kernel_space = Some(kernel_space);
    table.memory = Some(os_memory);
    table.processes = Some(processes);
    table.open_process = Some(open_process);
    table.modules = Some(modules);
    table.symbols = Some(symbols);
    table.symbols_named = Some(symbols_named);
    table.symbol_at = Some(symbol_at);
    table.kernel_log = Some(kernel_log);
    table
};

/// An operating system with what is handed out of it by pointer. A handle's context is an `Arc` of this.
struct Exported {
    os: Arc<dyn Os>,
    space: Space,
    info: KernelInfo,
    evidence: Vec<Text>,
    // INVARIANT: points into `info` and `evidence`, which never change.
    kernel: OnceLock<KernelRecord>,
}

// SAFETY: the pointers in it lead to its own fields, which never change.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

/// A handle of an operating system for the other side.
pub(in crate::plugin) fn os(os: Arc<dyn Os>) -> OsHandle {
    let info = os.kernel().clone();
    let exported = Exported {
        space: Space::new(os.kernel_space(), os.physical_memory()),
        evidence: info.evidence.iter().map(|line| Text::new(line)).collect(),
        info,
        os,
        kernel: OnceLock::new(),
    };
    OsHandle { context: Arc::into_raw(Arc::new(exported)).cast_mut().cast(), table: Grows::new(&TABLE) }
}

/// # Safety
/// `context` is one of a handle that [`os`] made and that has not been dropped.
unsafe fn exported<'a>(context: *mut c_void) -> &'a Exported {
    // SAFETY: the caller's promise: the handle keeps the `Arc` alive.
    unsafe { &*context.cast::<Exported>() }
}

unsafe extern "C" fn clone(context: *mut c_void) -> *mut c_void {
    // SAFETY: the ABI's contract: the context is that of a living handle, so it came from `Arc::into_raw`.
    unsafe { Arc::increment_strong_count(context.cast::<Exported>()) };
    context
}

unsafe extern "C" fn drop_handle(context: *mut c_void) {
    // SAFETY: the ABI's contract: the handle is given up, and its context came from `Arc::into_raw`.
    let exported = unsafe { Arc::from_raw(context.cast::<Exported>()) };
    guard::quietly((), || drop(exported));
}

unsafe extern "C" fn kernel(context: *mut c_void) -> Grows<KernelRecord> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let record = exported.kernel.get_or_init(|| {
        let mut record = KernelRecord::empty();
        exported.info.with_wire(|wire| {
            // The texts are those of `info`; only the list of evidence is made for the call.
            record.system = wire.system;
            record.release = wire.release;
            record.version = wire.version;
            record.hostname = wire.hostname;
            record.architecture = wire.architecture;
            record.base = wire.base;
            record.build_id = wire.build_id;
        });
        record.evidence = exported.evidence.as_ptr();
        record.evidence_count = exported.evidence.len();
        record
    });
    Grows::new(record)
}

unsafe extern "C" fn kernel_space(context: *mut c_void) -> Grows<SpaceRecord> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    exported.space.record()
}

unsafe extern "C" fn os_memory(context: *mut c_void, out: *mut Memory, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let hand_over = || {
        let handle = memory(exported.os.physical_memory().clone());
        // SAFETY: the ABI's contract: `out` is the callee's to fill in.
        unsafe { out.write(handle) };
        Ok(())
    };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { guard::fallible(failure, hand_over) }
}

unsafe extern "C" fn processes(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.os.processes()) }
}

unsafe extern "C" fn open_process(
    context: *mut c_void,
    record: Grows<ProcessRecord>,
    out: *mut Process,
    failure: FailureSink,
) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let hand_over = || {
        // SAFETY: the ABI's contract: the record is whole for the call.
        let wire = unsafe { raw::structure(record) }.ok_or_else(|| records::broken("no process record"))?;
        // SAFETY: the ABI's contract: so are its texts.
        let info = unsafe { ProcessInfo::from_wire(&wire) }?;
        let process = exported.os.open(&info)?;
        let handle = process::process(process, exported.os.physical_memory());
        // SAFETY: the ABI's contract: `out` is the callee's to fill in.
        unsafe { out.write(handle) };
        Ok(())
    };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { guard::fallible(failure, hand_over) }
}

unsafe extern "C" fn modules(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.os.modules()) }
}

unsafe extern "C" fn symbols(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.os.symbols()) }
}

unsafe extern "C" fn symbols_named(context: *mut c_void, name: Text, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the name is whole for the call.
    let name = unsafe { raw::text(name) }.unwrap_or_default();
    let found = || Ok(complete(exported.os.symbols_named(&name)?));
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, found) }
}

unsafe extern "C" fn symbol_at(
    context: *mut c_void,
    address: u64,
    distance: *mut u64,
    sink: RecordSink,
    failure: FailureSink,
) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let found = || {
        let Some((symbol, offset)) = exported.os.symbol_at(VirtAddr::new(address))? else {
            return Ok(Listing::new());
        };
        // SAFETY: the ABI's contract: `distance` is the callee's to fill in.
        unsafe { distance.write(offset) };
        Ok(complete(vec![symbol]))
    };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, found) }
}

unsafe extern "C" fn kernel_log(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.os.kernel_log()) }
}

/// A list without problems.
pub(super) fn complete<T>(items: Vec<T>) -> Listing<T> {
    Listing { items, problems: Vec::new() }
}
