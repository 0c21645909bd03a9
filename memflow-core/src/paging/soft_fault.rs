//! Entries that the processor refuses and the operating system understands.
//!
//! Owns: the question to an OS layer and its answer. Must not know: any operating system.
//! Keeps: asked only when a walk has stopped at an entry that is not present and not zero, and once for all stops of a batch.

use super::{PageFlags, Translation, Walked, arch::Architecture, entry::Halt};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::{Reason, Stop, StopCause},
    memory::PhysicalMemory,
};

/// What an OS layer knows of entries that are not present: pages that the processor may not touch and that lie in memory all the
/// same (Linux `PROT_NONE`, Windows transition pages), or that were paged out.
pub trait SoftFaults: Send + Sync {
    /// Answers the questions it can; the others are left at [`SoftFaultAnswer::NotMapped`].
    ///
    /// Reads that it makes are its own: all that one batch needs is asked at once, so that they can be batched too.
    fn resolve(&self, memory: &dyn PhysicalMemory, faults: &mut [SoftFault]);
}

/// One walk that stopped at an entry that is not present and not zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SoftFault {
    /// The first virtual address in question. Others under the same entry follow its answer.
    pub addr: VirtAddr,
    /// The entry, its level and its table.
    pub stop: Stop,
    /// The size of what the entry covers.
    pub page: PageSize,
    /// The answer.
    pub answer: SoftFaultAnswer,
}

/// What an entry that is not present means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum SoftFaultAnswer {
    /// Nothing: the address is not mapped.
    #[default]
    NotMapped,
    /// A page in physical memory.
    Page {
        /// Physical address of the first byte of what the entry covers.
        base: PhysAddr,
        /// Rights and state that the entry gives; those of the levels above restrict them further.
        flags: PageFlags,
    },
    /// A page in swap or in a file.
    PagedOut,
    /// Nobody knows: the code that answers panicked.
    Panicked,
}

/// True when the operating system may know more.
pub(super) fn is_soft(halt: &Halt) -> bool {
    halt.stop.cause == StopCause::NotPresent && halt.stop.entry != 0
}

/// Asks `resolver` about all of `stopped` at once and calls `each` with what became of them.
pub(super) fn settle(
    arch: &Architecture,
    resolver: &dyn SoftFaults,
    memory: &dyn PhysicalMemory,
    stopped: &[Walked],
    mut each: impl FnMut(Walked<Reason>),
) {
    let halts = || stopped.iter().filter_map(|walked| walked.result.err().map(|halt| (*walked, halt)));
    let mut faults: Vec<SoftFault> = halts().map(|(walked, halt)| question(arch, walked.first, &halt)).collect();
    if faults.is_empty() {
        return;
    }
    resolver.resolve(memory, &mut faults);
    for ((Walked { op, first, last, .. }, halt), fault) in halts().zip(&faults) {
        each(Walked { op, first, last, result: answer(fault, &halt) });
    }
}

/// Asks about one stop.
pub(super) fn settle_one(
    arch: &Architecture,
    resolver: &dyn SoftFaults,
    memory: &dyn PhysicalMemory,
    addr: u64,
    halt: &Halt,
) -> Result<Translation, Reason> {
    let mut faults = [question(arch, addr, halt)];
    resolver.resolve(memory, &mut faults);
    let [fault] = faults;
    answer(&fault, halt)
}

fn question(arch: &Architecture, addr: u64, halt: &Halt) -> SoftFault {
    let shift = arch.level(halt.stop.level).map(|level| level.shift);
    SoftFault {
        addr: VirtAddr::new(addr),
        stop: halt.stop,
        page: shift.and_then(PageSize::from_shift).unwrap_or(PageSize::KIB_4),
        answer: SoftFaultAnswer::NotMapped,
    }
}

/// The answer, with the rights of the levels above.
fn answer(fault: &SoftFault, halt: &Halt) -> Result<Translation, Reason> {
    match fault.answer {
        SoftFaultAnswer::NotMapped => Err(halt.reason()),
        SoftFaultAnswer::PagedOut => Err(Reason::PagedOut { entry: halt.stop.entry }),
        SoftFaultAnswer::Panicked => Err(Reason::Panicked),
        SoftFaultAnswer::Page { base, flags } => {
            let allowed = PageFlags::WRITABLE.union(PageFlags::USER);
            let refused = allowed.difference(halt.rights);
            Ok(Translation {
                phys: base.page_base(fault.page).wrapping_add(fault.addr.page_offset(fault.page)),
                page: fault.page,
                level: halt.stop.level,
                flags: flags.difference(refused).union(halt.rights.intersection(PageFlags::NO_EXECUTE)),
            })
        }
    }
}
