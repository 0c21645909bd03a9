//! The binary interface between memflow and its plugins: C structures and nothing else.
//!
//! Both sides of a plugin boundary are compiled against this crate or against `include/memflow_plugin.h`, which says the same in C
//! and is compared with this crate by a test. Rust programs and plugins do not use it directly: `memflow_core::plugin` does.
//!
//! Owns: layouts, numbers and the contract of every function pointer. Must not know: memflow's own types.
//!
//! # Rules
//!
//! * **Growing structures** start with a [`Header`]: their size in bytes and the version they were built for. A later minor version
//!   appends fields behind the end, not in its padding, and changes nothing before them. Whoever reads one takes `size` bytes at most
//!   and treats what is missing as zero: a null pointer, an absent function, "unknown". Pointers to them are written [`Grows<T>`].
//! * **Fixed structures** ([`Text`], [`ReadOp`], …) lie in arrays or are passed by value; they change with the major version only.
//! * **Versions**: the same major version fits, whatever the minor ones of the two sides. Earlier ones are frozen in `tests/abi`, and
//!   tests compare this one with them; `docs/design.md` says what to do when something is appended.
//! * **Threads**: every function may be called from any thread, and those of one object from several at once.
//! * **Ownership**: memory is freed by the side that made it. A `drop` function gives up one handle, `clone` makes another for the
//!   same object. What a function returns by pointer belongs to the object and stays as it is until the object's last handle is
//!   dropped, unless its description says otherwise. What is passed to a function is borrowed for the call, but for handles that are
//!   passed by value, which the callee owns from then on, whatever it returns.
//! * **Failures**: functions that can fail return zero for success. Before they return anything else they call the [`FailureSink`]
//!   once. Nothing unwinds across the boundary.
//! * **Loaded libraries stay loaded** until the process ends, so function pointers and static data of a plugin stay valid.
//! * Numbers that have names here (states, reasons, kinds) may get further names in a minor version; an unknown one is passed on as
//!   "unknown", never taken for another.

#![no_std]
#![allow(
    missing_debug_implementations,
    reason = "of types that the derive of `StableAbi` adds to each growing structure"
)]

mod entry;
mod growing;
mod memory;
mod os;
mod paging;
mod report;
mod view;

pub use crate::{
    entry::{
        Argument, ConnectorRequest, Host, LogMessage, OpenReport, OsRequest, PluginEntry, PluginEntryRef, Progress,
        TargetRecord, log_level,
    },
    growing::{Field, Growing, Grows, Header, LAYOUT, NUMBERS, Numbers, STRUCTURES, Structure, TypeLayout, compatible},
    memory::{
        AArch64Vcpu, DirectMap, DirectRegion, DumpHeader, Facts, Memory, MemoryInfo, MemoryTable, Run, RunSink,
        VcpuRecord, X86Vcpu, aarch64_register, header_fact, liveness, machine, run_state, x86_register,
    },
    os::{
        KernelRecord, LogRecord, ModuleRecord, Os, OsTable, Process, ProcessRecord, ProcessTable, RegionRecord,
        SymbolRecord, ThreadRecord, permission, process_present, process_state, region_kind,
    },
    paging::{SoftFault, SoftFaults, SoftFaultsTable, SpaceRecord, page_flag, soft_fault_answer},
    report::{
        Failure, FailureSink, Outcome, ReadOp, RecordSink, Text, TextRecord, WriteOp, access, address_space, cause,
        failure, status,
    },
    view::{View, ViewInfo, ViewTable},
};

/// The major version: both sides must have the same.
pub const MAJOR: u16 = 1;
/// The minor version: raised when something is appended.
pub const MINOR: u16 = 2;
/// Both as a descriptor has them: `major.minor`.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
