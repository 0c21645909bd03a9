//! Opened processes of the other side.
//!
//! Owns: questions about a process, and the choice of how its memory is read: by its page tables on this side where the plugin says that
//! they are all there is to it, else by calls.
//! Must not know: any one system.

use std::{ffi::c_void, fmt, sync::Arc};

use memflow_abi::{
    FailureSink, Grows, Process as ProcessHandle, ProcessRecord, ProcessTable, RecordSink, SpaceRecord, View,
};

use super::{
    collect,
    handle::{Handle, blamed, broken, required},
    os::filled,
    space, view,
};
use crate::{
    error::Result,
    memory::{PhysicalMemory, ViewRead, ViewWrite},
    os::{Listing, MemoryRegion, Process, ProcessInfo, ThreadInfo},
    paging::AddressSpace,
    plugin::wire::{raw, records::Record},
    view::{MemoryView, SpaceView, ViewMetadata},
};

/// A table's function that lists.
type ListFn = unsafe extern "C" fn(*mut c_void, RecordSink, FailureSink) -> i32;
/// A table's function that gives a space.
type SpaceFn = unsafe extern "C" fn(*mut c_void) -> Grows<SpaceRecord>;

/// A process of the other side.
struct Foreign {
    // Dropped before the handle, which it came from.
    memory: Access,
    who: Arc<str>,
    handle: Handle,
    table: ProcessTable,
    info: ProcessInfo,
    space: Option<AddressSpace>,
    physical: Arc<dyn PhysicalMemory>,
}

/// How the memory of a process is read.
enum Access {
    /// By its page tables, on this side.
    Walked(SpaceView),
    /// By calls.
    Called(view::Foreign),
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("who", &self.who).field("info", &self.info).finish_non_exhaustive()
    }
}

/// Takes over a handle of a process of the system in `physical`.
///
/// # Errors
/// What is wrong with the handle or with what it says of itself.
///
/// # Safety
/// The handle is one that the ABI says is handed over.
pub(super) unsafe fn process(
    source: ProcessHandle,
    who: &Arc<str>,
    physical: &Arc<dyn PhysicalMemory>,
) -> Result<Box<dyn Process>> {
    // SAFETY: the caller's promise.
    let table = unsafe { raw::structure::<ProcessTable>(source.table) };
    let table = table.ok_or_else(|| broken(who, "the table of a process cannot be used"))?;
    let drop = required(who, "drop", table.drop)?;
    // SAFETY: the caller's promise: the handle is handed over, and this is its table's function.
    let handle = unsafe { Handle::new(source.context, drop) };
    let function = required(who, "record", table.record)?;
    // SAFETY: a function of the handle's table.
    let record = unsafe { handle.ask::<ProcessRecord>(function) };
    let record = record.ok_or_else(|| broken(who, "a process does not say what it is"))?;
    // SAFETY: the ABI's contract: what the record points to stays while the handle lives.
    let info = unsafe { ProcessInfo::from_wire(&record) }.map_err(|error| blamed(who, error))?;
    // SAFETY: a function of the handle's table with its context.
    let space = unsafe { optional_space(table.space, &handle, who) }?;
    // SAFETY: as above.
    let memory = match unsafe { optional_space(table.walk, &handle, who) }? {
        Some(space) => Access::Walked(SpaceView::new(physical.clone(), space)),
        None => {
            let function = required(who, "view", table.view)?;
            // SAFETY: a function of the handle's table with its context; `out` is the callee's to fill in.
            let call = |out: *mut View, failure| unsafe { function(handle.context(), out, failure) };
            // SAFETY: a handle of zeros is valid, if useless.
            let source = unsafe { filled(who, call) }?;
            // SAFETY: the ABI's contract: a function that succeeds has filled in a handle that is handed over.
            Access::Called(unsafe { view::view(source, who) }?)
        }
    };
    Ok(Box::new(Foreign { memory, who: who.clone(), handle, table, info, space, physical: physical.clone() }))
}

/// # Safety
/// The function is one of the table that the handle belongs to.
unsafe fn optional_space(function: Option<SpaceFn>, handle: &Handle, who: &str) -> Result<Option<AddressSpace>> {
    let Some(function) = function else { return Ok(None) };
    // SAFETY: the caller's promise.
    let record = unsafe { function(handle.context()) };
    if record.is_null() {
        return Ok(None);
    }
    // SAFETY: the ABI's contract: the record stays while the handle lives.
    let record = unsafe { raw::structure(record) };
    let record = record.ok_or_else(|| broken(who, "the address space of a process cannot be used"))?;
    // SAFETY: as above.
    unsafe { space::space(&record, who) }.map(Some)
}

impl Foreign {
    fn list<R: Record>(&self, name: &str, function: Option<ListFn>) -> Result<Listing<R>> {
        let function = required(&self.who, name, function)?;
        // SAFETY: a function of the handle's table with its context.
        collect(&self.who, |sink, failure| unsafe { function(self.handle.context(), sink, failure) })
    }

    fn view(&self) -> &dyn MemoryView {
        match &self.memory {
            Access::Walked(view) => view,
            Access::Called(view) => view,
        }
    }
}

impl MemoryView for Foreign {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.view().read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        self.view().write_batch(ops)
    }

    fn metadata(&self) -> ViewMetadata {
        self.view().metadata()
    }
}

impl Process for Foreign {
    fn info(&self) -> &ProcessInfo {
        &self.info
    }

    fn address_space(&self) -> Option<&AddressSpace> {
        self.space.as_ref()
    }

    fn space_view(&self) -> Option<&SpaceView> {
        match &self.memory {
            Access::Walked(view) => Some(view),
            Access::Called(_) => None,
        }
    }

    fn physical_memory(&self) -> &dyn PhysicalMemory {
        &*self.physical
    }

    fn executable(&self) -> Result<Option<String>> {
        Ok(self.list("executable", self.table.executable)?.into_complete()?.into_iter().next())
    }

    fn command_line(&self) -> Result<Vec<String>> {
        self.list("command_line", self.table.command_line)?.into_complete()
    }

    fn environment(&self) -> Result<Vec<String>> {
        self.list("environment", self.table.environment)?.into_complete()
    }

    fn memory_map(&self) -> Result<Listing<MemoryRegion>> {
        self.list("memory_map", self.table.memory_map)
    }

    fn threads(&self) -> Result<Listing<ThreadInfo>> {
        self.list("threads", self.table.threads)
    }
}
