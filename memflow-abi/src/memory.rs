//! Physical memory across the boundary.
//!
//! Must not know: page tables, operating systems.

use core::ffi::c_void;

use crate::{
    Grows,
    growing::{fixed, growing, numbers},
    report::{ReadOp, Text, WriteOp},
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
    }
}
