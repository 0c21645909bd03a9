//! Operating systems of the other side.
//!
//! Owns: questions to the system. Its memory is read on this side, by the page tables that it names.
//! Must not know: any one system.

use std::{
    ffi::c_void,
    fmt,
    mem::MaybeUninit,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memflow_abi::{
    FailureSink, Grows, KernelRecord, Memory, Os as OsHandle, OsTable, Process as ProcessHandle, RecordSink,
    SpaceRecord, Text,
};

use super::{
    collect,
    handle::{Handle, blamed, broken, required},
    memory::memory,
    process, space,
};
use crate::{
    address::VirtAddr,
    error::{Error, Result},
    memory::PhysicalMemory,
    os::{KernelInfo, Listing, LogRecord, ModuleInfo, Os, Process, ProcessInfo, SymbolInfo},
    paging::AddressSpace,
    plugin::wire::{failure, raw, records::Record},
    view::{MemoryView, SpaceView},
};

/// A table's function that lists.
type ListFn = unsafe extern "C" fn(*mut c_void, RecordSink, FailureSink) -> i32;

/// A system of the other side.
struct Foreign {
    who: Arc<str>,
    handle: Handle,
    table: OsTable,
    kernel: KernelInfo,
    view: SpaceView,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("who", &self.who).field("kernel", &self.kernel).finish_non_exhaustive()
    }
}

/// Takes over a handle of an operating system. `who` is the plugin, for messages; `known` is the memory that the system lies in, when
/// this side has it, so that it is not called for through the other.
///
/// # Errors
/// What is wrong with the handle or with what it says of itself.
///
/// # Safety
/// The handle is one that the ABI says is handed over.
pub(in crate::plugin) unsafe fn os(
    source: OsHandle,
    who: &str,
    known: Option<Arc<dyn PhysicalMemory>>,
) -> Result<Arc<dyn Os>> {
    // SAFETY: the caller's promise.
    let table = unsafe { raw::structure::<OsTable>(source.table) };
    let table = table.ok_or_else(|| broken(who, "the table of its operating system cannot be used"))?;
    let drop = required(who, "drop", table.drop)?;
    // SAFETY: the caller's promise: the handle is handed over, and this is its table's function.
    let handle = unsafe { Handle::new(source.context, drop) };
    let function = required(who, "kernel", table.kernel)?;
    // SAFETY: a function of the handle's table.
    let record = unsafe { handle.ask::<KernelRecord>(function) };
    let record = record.ok_or_else(|| broken(who, "its operating system does not say what kernel it has"))?;
    // SAFETY: the ABI's contract: what the record points to stays while the handle lives.
    let kernel = unsafe { KernelInfo::from_wire(&record) }.map_err(|error| blamed(who, error))?;
    let function = required(who, "kernel_space", table.kernel_space)?;
    // SAFETY: a function of the handle's table.
    let record = unsafe { handle.ask::<SpaceRecord>(function) };
    let record = record.ok_or_else(|| Error::Unsupported {
        what: format!("operating system of {who} without an address space of its kernel"),
        why: "this build of memflow reads kernels through their page tables; update memflow".to_owned(),
    })?;
    // SAFETY: the ABI's contract: what the record points to stays while the handle lives.
    let space = unsafe { space::space(&record, who) }?;
    let memory = match known {
        Some(memory) => memory,
        None => {
            let function = required(who, "memory", table.memory)?;
            // SAFETY: a function of the handle's table with its context; `out` is the callee's to fill in.
            let call = |out: *mut Memory, failure| unsafe { function(handle.context(), out, failure) };
            // SAFETY: a handle of zeros is valid, if useless.
            let source = unsafe { filled(who, call) }?;
            // SAFETY: the ABI's contract: a function that succeeds has filled in a handle that is handed over.
            unsafe { memory(source, who) }?
        }
    };
    let view = SpaceView::new(memory, space);
    Ok(Arc::new(Foreign { who: who.into(), handle, table, kernel, view }))
}

/// What a call of `who` fills in when it succeeds.
///
/// # Errors
/// The failure that the call told.
///
/// # Safety
/// All-zero bytes are a valid `T`, and the call fills it in when it returns zero.
pub(in crate::plugin) unsafe fn filled<T>(who: &str, call: impl FnOnce(*mut T, FailureSink) -> i32) -> Result<T> {
    let mut out = MaybeUninit::<T>::zeroed();
    failure::call(|failure| call(out.as_mut_ptr(), failure)).map_err(|error| blamed(who, error))?;
    // SAFETY: zero or filled in, both of which are valid by the caller's promise.
    Ok(unsafe { out.assume_init() })
}

impl Foreign {
    fn list<R: Record>(&self, name: &str, function: Option<ListFn>) -> Result<Listing<R>> {
        let function = required(&self.who, name, function)?;
        // SAFETY: a function of the handle's table with its context.
        collect(&self.who, |sink, failure| unsafe { function(self.handle.context(), sink, failure) })
    }
}

impl Os for Foreign {
    fn kernel(&self) -> &KernelInfo {
        &self.kernel
    }

    fn kernel_space(&self) -> &AddressSpace {
        self.view.space()
    }

    fn kernel_view(&self) -> &dyn MemoryView {
        &self.view
    }

    fn physical_memory(&self) -> &Arc<dyn PhysicalMemory> {
        self.view.memory()
    }

    fn processes(&self) -> Result<Listing<ProcessInfo>> {
        self.list("processes", self.table.processes)
    }

    fn open(&self, process: &ProcessInfo) -> Result<Box<dyn Process>> {
        let function = required(&self.who, "open_process", self.table.open_process)?;
        let call = |out: *mut ProcessHandle, failure| {
            // SAFETY: a function of the handle's table with its context; the record is whole for the call.
            process.with_wire(|wire| unsafe { function(self.handle.context(), Grows::new(wire), out, failure) })
        };
        // SAFETY: a handle of zeros is valid, if useless.
        let source = unsafe { filled::<ProcessHandle>(&self.who, call) }?;
        // SAFETY: the ABI's contract: a function that succeeds has filled in a handle that is handed over.
        let opened = unsafe { process::process(source, &self.who, self.view.memory()) }?;
        match opened.info().pid {
            pid if pid == process.pid => Ok(opened),
            pid => Err(broken(&self.who, format_args!("process {pid} was opened in place of {}", process.pid))),
        }
    }

    fn modules(&self) -> Result<Listing<ModuleInfo>> {
        self.list("modules", self.table.modules)
    }

    fn symbols(&self) -> Result<Listing<SymbolInfo>> {
        self.list("symbols", self.table.symbols)
    }

    fn symbols_named(&self, name: &str) -> Result<Vec<SymbolInfo>> {
        let function = required(&self.who, "symbols_named", self.table.symbols_named)?;
        // SAFETY: a function of the handle's table with its context; the name is whole for the call.
        let call = |sink, failure| unsafe { function(self.handle.context(), Text::new(name), sink, failure) };
        collect(&self.who, call)?.into_complete()
    }

    fn symbol_at(&self, address: VirtAddr) -> Result<Option<(SymbolInfo, u64)>> {
        let function = required(&self.who, "symbol_at", self.table.symbol_at)?;
        let distance = AtomicU64::new(0);
        let call = |sink, failure| {
            // SAFETY: a function of the handle's table with its context; the distance is the callee's to fill in.
            unsafe { function(self.handle.context(), address.as_u64(), distance.as_ptr(), sink, failure) }
        };
        let symbol: Option<SymbolInfo> = collect(&self.who, call)?.into_complete()?.into_iter().next();
        let distance = distance.load(Ordering::Relaxed);
        match symbol {
            Some(symbol) if symbol.address.as_u64().checked_add(distance) != Some(address.as_u64()) => Err(broken(
                &self.who,
                format_args!("symbol at {}, said to be {distance:#x} bytes before {address}", symbol.address),
            )),
            symbol => Ok(symbol.map(|symbol| (symbol, distance))),
        }
    }

    fn kernel_log(&self) -> Result<Listing<LogRecord>> {
        self.list("kernel_log", self.table.kernel_log)
    }
}
