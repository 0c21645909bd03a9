//! Operating systems and processes across the boundary.
//!
//! Must not know: any one system.

use core::ffi::c_void;

use crate::{
    Grows,
    growing::{fixed, growing, numbers},
    memory::Memory,
    paging::SpaceRecord,
    report::{FailureSink, RecordSink, Text},
    view::View,
};

growing! {
    /// The kernel that was found.
    KernelRecord, KernelRecordRef, KernelRecordPrefix {
        /// The operating system ("Linux").
        system: Text,
        /// Its release.
        release: Text,
        /// Its full version text.
        version: Text,
        /// The host name, if known.
        hostname: Text,
        /// Name of the paging mode.
        architecture: Text,
        /// Where the kernel's code starts.
        base: u64,
        /// Build identification in hexadecimal, if known.
        build_id: Text,
        /// How the kernel was found, for people.
        evidence: *const Text,
        /// Number of texts in `evidence`.
        evidence_count: usize,
    }
}

numbers! {
    /// Bits of [`ProcessRecord::present`].
    process_present: u32 {
        /// `uid` is known.
        UID = 1,
        /// `gid` is known.
        GID = 1 << 1,
        /// `root` is known: the process has an address space.
        ROOT = 1 << 2,
        /// It is a thread of the kernel.
        KERNEL_THREAD = 1 << 3,
    }
}

numbers! {
    /// States of processes and threads.
    process_state: u32 {
        /// On a CPU or ready for one.
        RUNNING = 1,
        /// Waiting, can be woken by a signal.
        SLEEPING = 2,
        /// Waiting, cannot be woken by a signal.
        DISK_SLEEP = 3,
        /// Stopped by a signal.
        STOPPED = 4,
        /// Stopped by a debugger.
        TRACED = 5,
        /// Ended, not yet waited for.
        ZOMBIE = 6,
        /// Being removed.
        DEAD = 7,
        /// A kernel thread with nothing to do.
        IDLE = 8,
        /// Parked.
        PARKED = 9,
    }
}

growing! {
    /// A process.
    ProcessRecord, ProcessRecordRef, ProcessRecordPrefix {
        /// The kernel's object.
        address: u64,
        /// Process id.
        pid: u32,
        /// Process id of the parent, 0 for none.
        parent_pid: u32,
        /// Effective user id.
        uid: u32,
        /// Effective group id.
        gid: u32,
        /// Bits of [`process_present`].
        present: u32,
        /// One of [`process_state`].
        state: u32,
        /// Number of threads.
        threads: u32,
        /// Zero.
        reserved: u32,
        /// The kernel's name of the process.
        name: Text,
        /// Nanoseconds from boot to its start.
        start_time: u64,
        /// Value of the root register.
        root: u64,
    }
}

growing! {
    /// A thread.
    ThreadRecord, ThreadRecordRef, ThreadRecordPrefix {
        /// The kernel's object.
        address: u64,
        /// Thread id.
        tid: u32,
        /// Process id.
        pid: u32,
        /// One of [`process_state`].
        state: u32,
        /// Zero.
        reserved: u32,
        /// Name.
        name: Text,
    }
}

numbers! {
    /// Bits of [`RegionRecord::permissions`].
    permission: u32 {
        /// Reads.
        READ = 1,
        /// Writes.
        WRITE = 1 << 1,
        /// Instruction fetches.
        EXECUTE = 1 << 2,
        /// Shared with other processes.
        SHARED = 1 << 3,
    }
}

numbers! {
    /// What a region is.
    region_kind: u32 {
        /// Memory without a file.
        ANONYMOUS = 1,
        /// A file: `name` is its path.
        FILE = 2,
        /// Memory with a name that the system gives: `name`, with its brackets.
        SPECIAL = 3,
    }
}

growing! {
    /// A region of a process' address space.
    RegionRecord, RegionRecordRef, RegionRecordPrefix {
        /// First address.
        start: u64,
        /// Number of bytes.
        len: u64,
        /// Bits of [`permission`].
        permissions: u32,
        /// One of [`region_kind`].
        kind: u32,
        /// Path or name, as the kind says.
        name: Text,
        /// Offset of the first byte in the file.
        file_offset: u64,
        /// Inode number.
        inode: u64,
        /// Device number, major.
        device_major: u32,
        /// Device number, minor.
        device_minor: u32,
    }
}

growing! {
    /// A module.
    ModuleRecord, ModuleRecordRef, ModuleRecordPrefix {
        /// The kernel's object.
        address: u64,
        /// Where the image starts.
        base: u64,
        /// Bytes in memory.
        size: u64,
        /// Name.
        name: Text,
        /// State in the system's words, if it has such.
        state: Text,
        /// Names of the modules that use this one.
        used_by: *const Text,
        /// Number of texts in `used_by`.
        used_by_count: usize,
    }
}

growing! {
    /// A symbol.
    SymbolRecord, SymbolRecordRef, SymbolRecordPrefix {
        /// Its address.
        address: u64,
        /// Type letter, as `nm` prints it: a Unicode code point.
        kind: u32,
        /// Zero.
        reserved: u32,
        /// Its name.
        name: Text,
        /// Its module; none for the kernel itself.
        module: Text,
    }
}

growing! {
    /// A record of the kernel's log.
    LogRecord, LogRecordRef, LogRecordPrefix {
        /// Nanoseconds since boot.
        time: u64,
        /// Sequence number.
        sequence: u64,
        /// Facility.
        facility: u32,
        /// Level.
        level: u32,
        /// Text without a line end.
        text: Text,
    }
}

fixed! {
    /// A handle of an operating system.
    Os {
        /// First argument of every function of the table.
        context: *mut c_void,
        /// The functions; null where there is no operating system.
        table: Grows<OsTable>,
    }
}

growing! {
    /// The functions of an operating system. Those that list put records of the named kind into the sink.
    OsTable, OsTableRef, OsTablePrefix {
        /// The context of another handle; may be the same pointer.
        clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
        /// Gives up a handle.
        drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
        /// The kernel: the same for as long as the handle lives.
        kernel: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<KernelRecord>>,
        /// The kernel's address space: the same for as long as the handle lives.
        kernel_space: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<SpaceRecord>>,
        /// Fills in a new handle of the physical memory that the system lies in.
        memory: Option<unsafe extern "C" fn(context: *mut c_void, memory: *mut Memory, failure: FailureSink) -> i32>,
        /// [`ProcessRecord`]s in the order of the system's list.
        processes: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// Opens a process that was listed.
        open_process: Option<
            unsafe extern "C" fn(
                context: *mut c_void,
                record: Grows<ProcessRecord>,
                process: *mut Process,
                failure: FailureSink,
            ) -> i32,
        >,
        /// [`ModuleRecord`]s of the kernel.
        modules: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// [`SymbolRecord`]s of the kernel and its modules.
        symbols: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// [`SymbolRecord`]s of that exact name.
        symbols_named: Option<
            unsafe extern "C" fn(context: *mut c_void, name: Text, sink: RecordSink, failure: FailureSink) -> i32,
        >,
        /// At most one [`SymbolRecord`]: the one at or before the address, and the distance to it in bytes.
        symbol_at: Option<
            unsafe extern "C" fn(
                context: *mut c_void,
                address: u64,
                distance: *mut u64,
                sink: RecordSink,
                failure: FailureSink,
            ) -> i32,
        >,
        /// [`LogRecord`]s of the kernel, oldest first.
        kernel_log: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    }
}

fixed! {
    /// A handle of an opened process.
    Process {
        /// First argument of every function of the table.
        context: *mut c_void,
        /// The functions.
        table: Grows<ProcessTable>,
    }
}

growing! {
    /// The functions of a process.
    ProcessTable, ProcessTableRef, ProcessTablePrefix {
        /// Gives up the handle; a process has one.
        drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
        /// The process as it was when it was opened: the same for as long as the handle lives.
        record: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<ProcessRecord>>,
        /// Its own address space, null for none: the same for as long as the handle lives.
        space: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<SpaceRecord>>,
        /// The address space that the process' memory is read through, if a walk of it over the system's physical memory is all there is
        /// to it: then `view` is not called. Null or absent if there is more.
        walk: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<SpaceRecord>>,
        /// Fills in a new handle of the process' memory.
        view: Option<unsafe extern "C" fn(context: *mut c_void, view: *mut View, failure: FailureSink) -> i32>,
        /// At most one [`TextRecord`](crate::TextRecord): the path of the executable.
        executable: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// [`TextRecord`](crate::TextRecord)s: the arguments.
        command_line: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// [`TextRecord`](crate::TextRecord)s: the environment, as `NAME=value`.
        environment: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// [`RegionRecord`]s by address.
        memory_map: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// [`ThreadRecord`]s.
        threads: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
    }
}
