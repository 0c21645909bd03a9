//! The crate `memflow-abi` as version 1.1 had it, frozen: its structures and their layout, for a plugin that was built against it.
//!
//! Documentation, numbers with names and the record of the layout are left out; what a compiled plugin carries is all here.
//! Owns: what a Rust plugin of ABI 1.1 is made of. Must not know: later versions. Nothing here changes any more.

#![no_std]
#![allow(missing_debug_implementations, missing_docs)]

use core::{ffi::c_void, marker::PhantomData, ptr};

use abi_stable::{StableAbi, type_layout::TypeLayout};

pub const MAJOR: u16 = 1;
pub const MINOR: u16 = 1;

#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, StableAbi)]
pub struct Header {
    pub size: u32,
    pub major: u16,
    pub minor: u16,
}

impl Header {
    pub const fn of<T>() -> Self {
        Self { size: size_of::<T>() as u32, major: MAJOR, minor: MINOR }
    }
}

#[repr(transparent)]
pub struct Grows<T> {
    pub ptr: *const T,
}

impl<T> Clone for Grows<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Grows<T> {}

impl<T> Grows<T> {
    pub const NULL: Self = Self { ptr: ptr::null() };

    pub const fn new(structure: &T) -> Self {
        Self { ptr: structure }
    }
}

// SAFETY: it is one pointer, which may be null; what it points to is compared on its own, as a field of `Layout`.
unsafe impl<T: 'static> StableAbi for Grows<T> {
    type IsNonZeroType = abi_stable::reexports::False;
    const LAYOUT: &'static TypeLayout = <*const Header as StableAbi>::LAYOUT;
}

// SAFETY: equal `T` give equal static equivalents.
unsafe impl<T: 'static> abi_stable::abi_stability::GetStaticEquivalent_ for Grows<T> {
    type StaticEquivalent = Grows<PhantomData<T>>;
}

/// Defines a structure that grows; the number is its size in `layout-64.txt`.
macro_rules! growing {
    ($size:literal: $name:ident, $reference:ident, $prefix:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[repr(C)]
        #[derive(StableAbi)]
        #[sabi(kind(Prefix(prefix_ref = $reference, prefix_fields = $prefix)))]
        #[sabi(missing_field(panic))]
        pub struct $name {
            #[sabi(last_prefix_field)]
            pub header: Header,
            $(pub $field: $type,)*
        }

        #[cfg(target_pointer_width = "64")]
        const _: () = assert!(size_of::<$name>() == $size);

        impl $name {
            pub const fn empty() -> Self {
                // SAFETY: all-zero bytes are a valid value of every field: numbers, raw pointers, optional functions.
                Self { header: Header::of::<Self>(), ..unsafe { core::mem::zeroed() } }
            }
        }
    };
}

/// Defines a structure that stays as it is; the number is its size in `layout-64.txt`.
macro_rules! fixed {
    ($size:literal: $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[repr(C)]
        #[derive(Clone, Copy, StableAbi)]
        pub struct $name {
            $(pub $field: $type,)*
        }

        #[cfg(target_pointer_width = "64")]
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

fixed! { 16: Text { ptr: *const u8, len: usize } }
fixed! { 40: Outcome { status: u32, level: u32, cause: u32, os_error: i32, offset: u64, address: u64, entry: u64 } }
fixed! { 64: ReadOp { address: u64, buffer: *mut u8, len: usize, outcome: Outcome } }
fixed! { 64: WriteOp { address: u64, buffer: *const u8, len: usize, outcome: Outcome } }
growing! { 96: Failure, FailureRef, FailurePrefix {
    kind: u32, access: u32, message: Text, space: u32, reserved: u32, address: u64, len: u64, outcome: Outcome,
} }
fixed! { 16: FailureSink {
    context: *mut c_void,
    set: Option<unsafe extern "C" fn(context: *mut c_void, failure: Grows<Failure>)>,
} }
fixed! { 24: RecordSink {
    context: *mut c_void,
    item: Option<unsafe extern "C" fn(context: *mut c_void, record: *const Header) -> i32>,
    problem: Option<unsafe extern "C" fn(context: *mut c_void, problem: Grows<Failure>)>,
} }
growing! { 24: TextRecord, TextRecordRef, TextRecordPrefix { text: Text } }
fixed! { 24: Run { start: u64, len: u64, offset: u64 } }
fixed! { 16: RunSink {
    context: *mut c_void,
    run: Option<unsafe extern "C" fn(context: *mut c_void, run: Run) -> i32>,
} }
growing! { 56: MemoryInfo, MemoryInfoRef, MemoryInfoPrefix {
    name: Text, runs: *const Run, run_count: usize, liveness: u32, read_only: u32, ideal_batch: u64,
} }
fixed! { 104: X86Vcpu {
    known: u64, cr0: u64, cr2: u64, cr3: u64, cr4: u64, efer: u64, lstar: u64, idtr_base: u64, gdtr_base: u64,
    gs_base: u64, kernel_gs_base: u64, rip: u64, rsp: u64,
} }
growing! { 48: Facts, FactsRef, FactsPrefix {
    machine: u32, reserved: u32, x86_vcpus: *const X86Vcpu, x86_vcpu_count: usize, vmcoreinfo: Text,
} }
fixed! { 32: DirectRegion { start: u64, len: u64, pointer: *mut u8, offset: u64 } }
growing! { 40: DirectMap, DirectMapRef, DirectMapPrefix {
    regions: *const DirectRegion, region_count: usize, liveness: u32, writable: u32, lost_from: *const u64,
} }
fixed! { 16: Memory { context: *mut c_void, table: Grows<MemoryTable> } }
growing! { 72: MemoryTable, MemoryTableRef, MemoryTablePrefix {
    clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
    drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
    read: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32>,
    write: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32>,
    info: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<MemoryInfo>>,
    facts: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<Facts>>,
    direct_map: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<DirectMap>>,
    populated_runs: Option<unsafe extern "C" fn(context: *mut c_void, runs: RunSink)>,
} }
fixed! { 48: SoftFault {
    address: u64, table: u64, entry: u64, level: u32, page_shift: u32, answer: u32, flags: u32, base: u64,
} }
fixed! { 16: SoftFaults { context: *mut c_void, table: Grows<SoftFaultsTable> } }
growing! { 32: SoftFaultsTable, SoftFaultsTableRef, SoftFaultsTablePrefix {
    clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
    drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
    resolve: Option<unsafe extern "C" fn(context: *mut c_void, faults: *mut SoftFault, count: usize)>,
} }
growing! { 48: SpaceRecord, SpaceRecordRef, SpaceRecordPrefix {
    architecture: Text, root: u64, soft_faults: SoftFaults,
} }
fixed! { 16: ViewInfo { last_address: u64, pointer_size: u32, read_only: u32 } }
fixed! { 16: View { context: *mut c_void, table: Grows<ViewTable> } }
growing! { 48: ViewTable, ViewTableRef, ViewTablePrefix {
    clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
    drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
    read: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32>,
    write: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32>,
    info: Option<unsafe extern "C" fn(context: *mut c_void, info: *mut ViewInfo)>,
} }
growing! { 128: KernelRecord, KernelRecordRef, KernelRecordPrefix {
    system: Text, release: Text, version: Text, hostname: Text, architecture: Text, base: u64, build_id: Text,
    evidence: *const Text, evidence_count: usize,
} }
growing! { 80: ProcessRecord, ProcessRecordRef, ProcessRecordPrefix {
    address: u64, pid: u32, parent_pid: u32, uid: u32, gid: u32, present: u32, state: u32, threads: u32, reserved: u32,
    name: Text, start_time: u64, root: u64,
} }
growing! { 48: ThreadRecord, ThreadRecordRef, ThreadRecordPrefix {
    address: u64, tid: u32, pid: u32, state: u32, reserved: u32, name: Text,
} }
growing! { 72: RegionRecord, RegionRecordRef, RegionRecordPrefix {
    start: u64, len: u64, permissions: u32, kind: u32, name: Text, file_offset: u64, inode: u64, device_major: u32,
    device_minor: u32,
} }
growing! { 80: ModuleRecord, ModuleRecordRef, ModuleRecordPrefix {
    address: u64, base: u64, size: u64, name: Text, state: Text, used_by: *const Text, used_by_count: usize,
} }
growing! { 56: SymbolRecord, SymbolRecordRef, SymbolRecordPrefix {
    address: u64, kind: u32, reserved: u32, name: Text, module: Text,
} }
growing! { 48: LogRecord, LogRecordRef, LogRecordPrefix {
    time: u64, sequence: u64, facility: u32, level: u32, text: Text,
} }
fixed! { 16: Os { context: *mut c_void, table: Grows<OsTable> } }
growing! { 104: OsTable, OsTableRef, OsTablePrefix {
    clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
    drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
    kernel: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<KernelRecord>>,
    kernel_space: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<SpaceRecord>>,
    memory: Option<unsafe extern "C" fn(context: *mut c_void, memory: *mut Memory, failure: FailureSink) -> i32>,
    processes: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    open_process: Option<unsafe extern "C" fn(context: *mut c_void, record: Grows<ProcessRecord>,
        process: *mut Process, failure: FailureSink) -> i32>,
    modules: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    symbols: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    symbols_named: Option<unsafe extern "C" fn(context: *mut c_void, name: Text, sink: RecordSink,
        failure: FailureSink) -> i32>,
    symbol_at: Option<unsafe extern "C" fn(context: *mut c_void, address: u64, distance: *mut u64,
        sink: RecordSink, failure: FailureSink) -> i32>,
    kernel_log: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
} }
fixed! { 16: Process { context: *mut c_void, table: Grows<ProcessTable> } }
growing! { 88: ProcessTable, ProcessTableRef, ProcessTablePrefix {
    drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
    record: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<ProcessRecord>>,
    space: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<SpaceRecord>>,
    walk: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<SpaceRecord>>,
    view: Option<unsafe extern "C" fn(context: *mut c_void, view: *mut View, failure: FailureSink) -> i32>,
    executable: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    command_line: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    environment: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    memory_map: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    threads: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
} }
growing! { 80: LogMessage, LogMessageRef, LogMessagePrefix {
    level: u32, line: u32, target: Text, message: Text, file: Text, module: Text,
} }
growing! { 32: Host, HostRef, HostPrefix {
    log: Option<unsafe extern "C" fn(message: Grows<LogMessage>)>,
    name: Text,
} }
fixed! { 32: Argument { name: Text, value: Text } }
fixed! { 16: Progress {
    context: *mut c_void,
    step: Option<unsafe extern "C" fn(context: *mut c_void, stage: Text, done: u64, total: u64) -> i32>,
} }
fixed! { 32: OpenReport {
    context: *mut c_void,
    format: Option<unsafe extern "C" fn(context: *mut c_void, format: Text)>,
    note: Option<unsafe extern "C" fn(context: *mut c_void, note: Text)>,
    alternative: Option<unsafe extern "C" fn(context: *mut c_void, arguments: Text)>,
} }
growing! { 120: ConnectorRequest, ConnectorRequestRef, ConnectorRequestPrefix {
    target: Text, content: Text, arguments: *const Argument, argument_count: usize, progress: Progress, input: Os,
    report: OpenReport,
} }
growing! { 56: OsRequest, OsRequestRef, OsRequestPrefix {
    memory: Memory, arguments: *const Argument, argument_count: usize, progress: Progress,
} }
growing! { 40: TargetRecord, TargetRecordRef, TargetRecordPrefix { name: Text, description: Text } }
growing! { 72: PluginEntry, PluginEntryRef, PluginEntryPrefix {
    descriptor: Text,
    layout: *const c_void,
    attach: Option<unsafe extern "C" fn(host: Grows<Host>)>,
    set_log_level: Option<unsafe extern "C" fn(level: u32)>,
    open_connector: Option<unsafe extern "C" fn(request: Grows<ConnectorRequest>, memory: *mut Memory,
        failure: FailureSink) -> i32>,
    open_os: Option<unsafe extern "C" fn(request: Grows<OsRequest>, os: *mut Os, failure: FailureSink) -> i32>,
    targets: Option<unsafe extern "C" fn(sink: RecordSink, failure: FailureSink) -> i32>,
} }

/// Every growing structure, as one: never made, only its layout is compared.
#[allow(dead_code)]
mod whole {
    use super::*;

    #[repr(C)]
    #[derive(StableAbi)]
    #[sabi(kind(Prefix(prefix_ref = LayoutRef, prefix_fields = LayoutPrefix)))]
    #[sabi(missing_field(panic))]
    pub(super) struct Layout {
        #[sabi(last_prefix_field)]
        entry: PluginEntryRef,
        host: HostRef,
        log_message: LogMessageRef,
        connector_request: ConnectorRequestRef,
        os_request: OsRequestRef,
        target: TargetRecordRef,
        failure: FailureRef,
        text: TextRecordRef,
        memory_info: MemoryInfoRef,
        facts: FactsRef,
        direct_map: DirectMapRef,
        memory_table: MemoryTableRef,
        soft_faults_table: SoftFaultsTableRef,
        space: SpaceRecordRef,
        view_table: ViewTableRef,
        kernel: KernelRecordRef,
        process: ProcessRecordRef,
        thread: ThreadRecordRef,
        region: RegionRecordRef,
        module: ModuleRecordRef,
        symbol: SymbolRecordRef,
        log_record: LogRecordRef,
        os_table: OsTableRef,
        process_table: ProcessTableRef,
    }
}

/// Layout of every structure of this version.
const LAYOUT: &TypeLayout = <whole::LayoutRef as StableAbi>::LAYOUT;

// SAFETY: an entry is a constant of its plugin: nothing changes it, and its pointers are to other constants and to functions.
unsafe impl Sync for PluginEntry {}

// SAFETY: a table is a constant of its plugin that holds functions.
unsafe impl Sync for MemoryTable {}

impl PluginEntry {
    /// An entry with the layout of this version and no functions.
    pub const fn rust() -> Self {
        Self { layout: ptr::from_ref::<TypeLayout>(LAYOUT).cast(), ..Self::empty() }
    }
}
