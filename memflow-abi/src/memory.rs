//! Physical memory across the boundary.
//!
//! Must not know: page tables, operating systems.

use core::ffi::c_void;

use crate::{
    Grows,
    growing::{fixed, growing, numbers},
    report::{FailureSink, ReadOp, RecordSink, Text, WriteOp},
};

fixed! {
    /// Consecutive physical memory.
    Run {
        /// First address.
        start: u64,
        /// Number of bytes, not zero.
        len: u64,
        /// Offset of the first byte in the source; zero where that means nothing.
        offset: u64,
    }
}

fixed! {
    /// Where runs go.
    RunSink {
        /// First argument of `run`.
        context: *mut c_void,
        /// Takes one run. Anything but zero asks for an end.
        run: Option<unsafe extern "C" fn(context: *mut c_void, run: Run) -> i32>,
    }
}

numbers! {
    /// Whether bytes change while they are read: values of `liveness` fields. An unknown value means [`LIVE`](self::liveness::LIVE).
    liveness: u32 {
        /// A running system.
        LIVE = 1,
        /// A snapshot.
        FROZEN = 2,
    }
}

growing! {
    /// What a target holds.
    MemoryInfo, MemoryInfoRef, MemoryInfoPrefix {
        /// The connector and its target, for messages ("snapshot core.elf").
        name: Text,
        /// The physical addresses that can be read, without overlaps.
        runs: *const Run,
        /// Number of runs.
        run_count: usize,
        /// One of [`liveness`].
        liveness: u32,
        /// Not zero when writes are refused.
        read_only: u32,
        /// Operations per call at which the source works best; zero for "any".
        ideal_batch: u64,
    }
}

numbers! {
    /// Kinds of machines: values of [`Facts::machine`].
    machine: u32 {
        /// Not known.
        UNKNOWN = 0,
        /// 32-bit x86.
        X86 = 1,
        /// 64-bit x86.
        X86_64 = 2,
        /// 64-bit Arm.
        AARCH64 = 3,
    }
}

numbers! {
    /// Bits of [`X86Vcpu::known`]: which registers were recorded.
    x86_register: u64 {
        /// Control register 0.
        CR0 = 1,
        /// Control register 2.
        CR2 = 1 << 1,
        /// Control register 3.
        CR3 = 1 << 2,
        /// Control register 4.
        CR4 = 1 << 3,
        /// The extended feature register.
        EFER = 1 << 4,
        /// Target of `syscall`.
        LSTAR = 1 << 5,
        /// Base of the interrupt descriptor table.
        IDTR_BASE = 1 << 6,
        /// Base of the global descriptor table.
        GDTR_BASE = 1 << 7,
        /// Base of GS.
        GS_BASE = 1 << 8,
        /// The GS base that `swapgs` would bring in.
        KERNEL_GS_BASE = 1 << 9,
        /// Instruction pointer.
        RIP = 1 << 10,
        /// Stack pointer.
        RSP = 1 << 11,
    }
}

fixed! {
    /// Registers of an x86 vCPU.
    X86Vcpu {
        /// Bits of [`x86_register`] for the registers that are known.
        known: u64,
        /// Control register 0.
        cr0: u64,
        /// Control register 2.
        cr2: u64,
        /// Control register 3.
        cr3: u64,
        /// Control register 4.
        cr4: u64,
        /// The extended feature register.
        efer: u64,
        /// Target of `syscall`.
        lstar: u64,
        /// Base of the interrupt descriptor table.
        idtr_base: u64,
        /// Base of the global descriptor table.
        gdtr_base: u64,
        /// Base of GS.
        gs_base: u64,
        /// The GS base that `swapgs` would bring in.
        kernel_gs_base: u64,
        /// Instruction pointer.
        rip: u64,
        /// Stack pointer.
        rsp: u64,
    }
}

numbers! {
    /// Bits of [`AArch64Vcpu::known`]: which registers were recorded. Since 1.2.
    aarch64_register: u64 {
        /// Root of the page tables of the lower half, with the ASID in its high 16 bits.
        TTBR0_EL1 = 1,
        /// Root of the page tables of the upper half, with the ASID in its high 16 bits.
        TTBR1_EL1 = 1 << 1,
        /// Translation control.
        TCR_EL1 = 1 << 2,
        /// System control.
        SCTLR_EL1 = 1 << 3,
        /// Meaning of the memory attributes in page-table entries.
        MAIR_EL1 = 1 << 4,
        /// Base of the exception vectors.
        VBAR_EL1 = 1 << 5,
        /// Software's own.
        TPIDR_EL1 = 1 << 6,
        /// Stack pointer of EL0.
        SP_EL0 = 1 << 7,
        /// Program counter.
        PC = 1 << 8,
        /// Stack pointer of the current exception level.
        SP = 1 << 9,
        /// Process state, laid out as SPSR_EL1.
        PSTATE = 1 << 10,
    }
}

fixed! {
    /// Registers of a 64-bit Arm vCPU. Since 1.2.
    AArch64Vcpu {
        /// Bits of [`aarch64_register`] for the registers that are known.
        known: u64,
        /// Root of the page tables of the lower half, with the ASID in its high 16 bits.
        ttbr0_el1: u64,
        /// Root of the page tables of the upper half, with the ASID in its high 16 bits.
        ttbr1_el1: u64,
        /// Translation control.
        tcr_el1: u64,
        /// System control.
        sctlr_el1: u64,
        /// Meaning of the memory attributes in page-table entries.
        mair_el1: u64,
        /// Base of the exception vectors.
        vbar_el1: u64,
        /// Software's own.
        tpidr_el1: u64,
        /// Stack pointer of EL0.
        sp_el0: u64,
        /// Program counter.
        pc: u64,
        /// Stack pointer of the current exception level.
        sp: u64,
        /// Process state, laid out as SPSR_EL1.
        pstate: u64,
    }
}

growing! {
    /// The registers of one vCPU. Since 1.2. One of the pointers is not null; with none of those that it knows, the receiver has a vCPU
    /// of a kind that it does not know.
    VcpuRecord, VcpuRecordRef, VcpuRecordPrefix {
        /// Those of an x86 vCPU.
        x86: *const X86Vcpu,
        /// Those of a 64-bit Arm vCPU.
        aarch64: *const AArch64Vcpu,
    }
}

numbers! {
    /// Whether the vCPUs of a target execute. Since 1.2.
    run_state: u32 {
        /// They do.
        RUNNING = 1,
        /// They do not.
        PAUSED = 2,
    }
}

numbers! {
    /// Bits of [`DumpHeader::known`]: what the header of a dump says. That of Windows says at least `BUILD`. Since 1.2.
    header_fact: u64 {
        /// The value of the register that leads to the page tables.
        DIRECTORY_TABLE = 1,
        /// Windows: the build number.
        BUILD = 1 << 1,
        /// Windows: one when page tables are in the format of PAE, else zero.
        PAE = 1 << 2,
        /// Windows: number of processors.
        PROCESSORS = 1 << 3,
        /// Windows: `KdDebuggerDataBlock`.
        DEBUGGER_DATA = 1 << 4,
        /// Windows: `PsLoadedModuleList`.
        LOADED_MODULES = 1 << 5,
        /// Windows: `PsActiveProcessHead`.
        ACTIVE_PROCESSES = 1 << 6,
        /// Windows: `MmPfnDatabase`.
        PFN_DATABASE = 1 << 7,
        /// Windows: why the machine stopped, with four parameters.
        BUG_CHECK = 1 << 8,
        /// Windows: when, in units of 100 ns since 1601-01-01 00:00 UTC.
        SYSTEM_TIME = 1 << 9,
    }
}

fixed! {
    /// What the header of a dump says. Since 1.2.
    DumpHeader {
        /// Bits of [`header_fact`] for what is known.
        known: u64,
        /// The value of the register that leads to the page tables.
        directory_table: u64,
        /// Windows: the build number.
        build: u64,
        /// Windows: one when page tables are in the format of PAE, else zero.
        pae: u64,
        /// Windows: number of processors.
        processors: u64,
        /// Windows: `KdDebuggerDataBlock`.
        debugger_data: u64,
        /// Windows: `PsLoadedModuleList`.
        loaded_modules: u64,
        /// Windows: `PsActiveProcessHead`.
        active_processes: u64,
        /// Windows: `MmPfnDatabase`.
        pfn_database: u64,
        /// Windows: why the machine stopped, with four parameters.
        bug_check: u64,
        /// First parameter of `bug_check`.
        bug_check_parameter_1: u64,
        /// Second parameter of `bug_check`.
        bug_check_parameter_2: u64,
        /// Third parameter of `bug_check`.
        bug_check_parameter_3: u64,
        /// Fourth parameter of `bug_check`.
        bug_check_parameter_4: u64,
        /// Windows: when, in units of 100 ns since 1601-01-01 00:00 UTC.
        system_time: u64,
    }
}

growing! {
    /// What a target knows about itself.
    Facts, FactsRef, FactsPrefix {
        /// One of [`machine`].
        machine: u32,
        /// Zero.
        reserved: u32,
        /// The registers of each vCPU of an x86 machine.
        x86_vcpus: *const X86Vcpu,
        /// Number of vCPUs.
        x86_vcpu_count: usize,
        /// Bytes of the guest kernel's VMCOREINFO note.
        vmcoreinfo: Text,
        /// The registers of each vCPU of a 64-bit Arm machine. Since 1.2.
        aarch64_vcpus: *const AArch64Vcpu,
        /// Number of them. Since 1.2.
        aarch64_vcpu_count: usize,
        /// Null, or what the header of a dump says. Since 1.2.
        dump_header: *const DumpHeader,
    }
}

fixed! {
    /// Consecutive physical memory in this process.
    DirectRegion {
        /// First physical address.
        start: u64,
        /// Number of bytes.
        len: u64,
        /// Where the first byte lies.
        pointer: *mut u8,
        /// Offset of that byte from the base of what backs it, for `lost_from`.
        offset: u64,
    }
}

growing! {
    /// Physical memory that lies in this process. It stays readable (and writable if so marked) at its addresses until the last
    /// handle of the memory is dropped. With [`liveness::FROZEN`] nobody writes to it.
    DirectMap, DirectMapRef, DirectMapPrefix {
        /// The regions, without overlaps.
        regions: *const DirectRegion,
        /// Number of regions.
        region_count: usize,
        /// One of [`liveness`].
        liveness: u32,
        /// Not zero when the bytes may be written to.
        writable: u32,
        /// Null, or a number that is read atomically after each access: the offset from which on bytes turned out to be missing (a file
        /// that was cut short), 2^64 - 1 while none did. Such bytes read as anything, but reading them must not fault.
        lost_from: *const u64,
    }
}

fixed! {
    /// A handle of physical memory.
    Memory {
        /// First argument of every function of the table.
        context: *mut c_void,
        /// The functions.
        table: Grows<MemoryTable>,
    }
}

growing! {
    /// The functions of physical memory.
    MemoryTable, MemoryTableRef, MemoryTablePrefix {
        /// The context of another handle for the same memory; may be the same pointer.
        clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
        /// Gives up a handle.
        drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
        /// Reads `count` operations in any order and records an outcome in each. Returns zero when that was done, whatever the outcomes.
        read: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32>,
        /// Writes `count` operations in the order given, as `read`. Absent when the memory cannot be written to.
        write: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32>,
        /// What the target holds: the same for as long as it is open.
        info: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<MemoryInfo>>,
        /// What the target knows about itself: the same for as long as it is open. Absent or null for nothing.
        facts: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<Facts>>,
        /// The target's bytes, if they lie in this process: then nothing is read through `read`. Absent or null if they do not.
        direct_map: Option<unsafe extern "C" fn(context: *mut c_void) -> Grows<DirectMap>>,
        /// The runs without what is known to be all zeros, in order; asked anew each time. Absent: all runs. Since 1.1.
        populated_runs: Option<unsafe extern "C" fn(context: *mut c_void, runs: RunSink)>,
        /// Whether the target runs: one of [`run_state`]. Absent, together with `pause` and `resume`: the target cannot be controlled.
        /// Since 1.2.
        run_state: Option<unsafe extern "C" fn(context: *mut c_void, state: *mut u32, failure: FailureSink) -> i32>,
        /// Stops all vCPUs and returns when they stand; nothing happens to a target that is paused. There if `run_state` is. Since 1.2.
        pause: Option<unsafe extern "C" fn(context: *mut c_void, failure: FailureSink) -> i32>,
        /// Lets all vCPUs run; nothing happens to a target that runs. There if `run_state` is. Since 1.2.
        resume: Option<unsafe extern "C" fn(context: *mut c_void, failure: FailureSink) -> i32>,
        /// Lists the registers of each vCPU now, as [`VcpuRecord`]. Absent: they cannot be told. Since 1.2.
        registers: Option<unsafe extern "C" fn(context: *mut c_void, sink: RecordSink, failure: FailureSink) -> i32>,
        /// What the machine had and whoever wrote the dump left out on purpose, in order; in none of the runs, and offsets mean nothing.
        /// Absent: nothing is known to be left out. Since 1.2.
        excluded_runs: Option<unsafe extern "C" fn(context: *mut c_void, runs: RunSink)>,
    }
}
