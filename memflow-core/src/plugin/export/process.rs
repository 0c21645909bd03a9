//! Opened processes behind the C interface.
//!
//! Must not know: any one system.

use std::{
    ffi::c_void,
    ptr,
    sync::{Arc, OnceLock},
};

use memflow_abi::{
    FailureSink, Grows, Process as ProcessHandle, ProcessRecord, ProcessTable, RecordSink, SpaceRecord, View,
};

use super::{guard, os::complete, space::Space, view::view};
use crate::{
    error::Result,
    memory::{PhysicalMemory, ViewRead, ViewWrite},
    os::{Process, ProcessInfo},
    plugin::wire::records::Record,
    view::{MemoryView, SpaceView, ViewMetadata},
};

static TABLE: ProcessTable = {
    let mut table = ProcessTable::empty();
    table.drop = Some(drop_handle);
    table.record = Some(record);
    table.space = Some(space);
    table.walk = Some(walk);
    table.view = Some(process_view);
    table.executable = Some(executable);
    table.command_line = Some(command_line);
    table.environment = Some(environment);
    table.memory_map = Some(memory_map);
    table.threads = Some(threads);
    table
};

/// A process with what is handed out of it by pointer. The handle's context is an `Arc` of this.
struct Exported {
    process: Box<dyn Process>,
    info: ProcessInfo,
    space: Option<Space>,
    walk: Option<Space>,
    // INVARIANT: points into `info`, which never changes.
    record: OnceLock<ProcessRecord>,
}

// SAFETY: the pointers in it lead to its own fields, which never change.
unsafe impl Send for Exported {}
// SAFETY: as above.
unsafe impl Sync for Exported {}

/// A handle of a process of the system in `memory` for the other side.
pub(super) fn process(process: Box<dyn Process>, memory: &Arc<dyn PhysicalMemory>) -> ProcessHandle {
    let info = process.info().clone();
    let space = process.address_space().map(|space| Space::new(space, memory));
    // A view over other memory than the other side has cannot be walked there.
    let same = |view: &&SpaceView| ptr::addr_eq(Arc::as_ptr(view.memory()), Arc::as_ptr(memory));
    let walk = process.space_view().filter(same).map(|view| Space::new(view.space(), memory));
    let exported = Exported { process, info, space, walk, record: OnceLock::new() };
    ProcessHandle { context: Arc::into_raw(Arc::new(exported)).cast_mut().cast(), table: Grows::new(&TABLE) }
}

/// The memory of a process, kept by whoever has the view.
struct Memory(Arc<Exported>);

impl MemoryView for Memory {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.0.process.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.0.process.write_batch(ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.0.process.metadata()
    }
}

/// # Safety
/// `context` is that of a handle that [`process`] made and that has not been dropped.
unsafe fn exported<'a>(context: *mut c_void) -> &'a Exported {
    // SAFETY: the caller's promise: the handle keeps the `Arc` alive.
    unsafe { &*context.cast::<Exported>() }
}

unsafe extern "C" fn drop_handle(context: *mut c_void) {
    // SAFETY: the ABI's contract: the handle is given up, and its context came from `Arc::into_raw`.
    let exported = unsafe { Arc::from_raw(context.cast::<Exported>()) };
    guard::quietly((), || drop(exported));
}

unsafe extern "C" fn record(context: *mut c_void) -> Grows<ProcessRecord> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let record = exported.record.get_or_init(|| {
        // The texts that the copy points to are those of `info`.
        // SAFETY: the structure is whole and ours; a copy of it is one more.
        exported.info.with_wire(|wire| unsafe { ptr::read(wire) })
    });
    Grows::new(record)
}

unsafe extern "C" fn space(context: *mut c_void) -> Grows<SpaceRecord> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    exported.space.as_ref().map_or(Grows::NULL, Space::record)
}

unsafe extern "C" fn walk(context: *mut c_void) -> Grows<SpaceRecord> {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    exported.walk.as_ref().map_or(Grows::NULL, Space::record)
}

unsafe extern "C" fn process_view(context: *mut c_void, out: *mut View, failure: FailureSink) -> i32 {
    let hand_over = || {
        // SAFETY: the ABI's contract: the context is that of a living handle, so it came from `Arc::into_raw`.
        unsafe { Arc::increment_strong_count(context.cast::<Exported>()) };
        // SAFETY: the count that was just added is the one that this takes.
        let exported = unsafe { Arc::from_raw(context.cast::<Exported>()) };
        // SAFETY: the ABI's contract: `out` is the callee's to fill in.
        unsafe { out.write(view(Arc::new(Memory(exported)))) };
        Ok(())
    };
    // SAFETY: the ABI's contract: the sink can be called for the call.
    unsafe { guard::fallible(failure, hand_over) }
}

unsafe extern "C" fn executable(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let path = || Ok(complete(exported.process.executable()?.into_iter().collect::<Vec<String>>()));
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, path) }
}

unsafe extern "C" fn command_line(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.process.command_line().map(complete)) }
}

unsafe extern "C" fn environment(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.process.environment().map(complete)) }
}

unsafe extern "C" fn memory_map(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.process.memory_map()) }
}

unsafe extern "C" fn threads(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the sinks can be called for the call.
    unsafe { guard::list(sink, failure, || exported.process.threads()) }
}
