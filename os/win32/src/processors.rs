//! What runs on each processor: the way from a processor's control block to its thread and process.
//!
//! Owns: where control blocks are found. Must not know: lists.
//! Source: `_KPCR`, `_KPRCB`, `_KTHREAD` in the kernel's symbols; `KiProcessorBlock` by the block for debuggers.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    VirtAddr,
    memory::{VcpuRegisters, X86Registers},
};

use crate::{kernel::Kernel, reader::Reader};

/// Most processors of a Windows system.
const MAX_PROCESSORS: u64 = 2048;
/// `_KPCR.Self`, the same on every x64 system.
const SELF: u64 = 0x18;
/// `_KPCR.Prcb`, the same on every x64 system.
const PRCB: u64 = 0x180;

/// A thread that runs on a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Running {
    /// The processor's control block (`_KPRCB`).
    pub processor: VirtAddr,
    /// The thread (`_KTHREAD`).
    pub thread: VirtAddr,
    /// Its process (`_EPROCESS`).
    pub process: VirtAddr,
}

/// What runs on the processors whose control blocks can be read: by GS bases of vCPUs, and by the kernel's own array.
pub(crate) fn running(kernel: &Kernel) -> Vec<Running> {
    let reader = Reader::new(&kernel.view);
    let mut blocks = Vec::new();
    let vcpus = kernel.memory.facts().vcpus.iter().filter_map(|vcpu| match vcpu {
        VcpuRegisters::X86(registers) => Some(registers),
        _ => None,
    });
    for X86Registers { gs_base, kernel_gs_base, .. } in vcpus.filter(|_| reader.is_wide()) {
        // In user mode, the kernel's base waits for `swapgs`.
        for base in [gs_base, kernel_gs_base].into_iter().flatten().map(|base| VirtAddr::new(*base)) {
            if reader.is_kernel(base) && reader.pointer(base, SELF).is_ok_and(|own| own == base) {
                blocks.push(base.wrapping_add(PRCB));
            }
        }
    }
    if let Some(array) = kernel.kdbg.as_ref().and_then(|kdbg| kdbg.processors()) {
        for number in 0..MAX_PROCESSORS {
            match reader.pointer(array, number.saturating_mul(reader.pointer_size())) {
                Ok(block) if reader.is_kernel(block) => blocks.push(block),
                _ => break,
            }
        }
    }
    let mut found: Vec<Running> = Vec::new();
    for block in blocks {
        if found.iter().all(|one| one.processor != block) {
            found.extend(thread_of(kernel, &reader, block));
        }
    }
    found
}

fn thread_of(kernel: &Kernel, reader: &Reader<'_>, processor: VirtAddr) -> Option<Running> {
    let current = kernel.layout.find("_KPRCB.CurrentThread")?;
    let thread = reader.pointer(processor, current).ok().filter(|thread| reader.is_kernel(*thread))?;
    let owner = kernel.layout.find("_KTHREAD.Process").or_else(|| kernel.layout.find("_KTHREAD.ApcState.Process"))?;
    let process = reader.pointer(thread, owner).ok().filter(|process| reader.is_kernel(*process))?;
    Some(Running { processor, thread, process })
}
