//! Address spaces behind the C interface.
//!
//! Must not know: operating systems, processes.

use std::{ffi::c_void, sync::Arc};

use memflow_abi::{Grows, SoftFault, SoftFaults, SoftFaultsTable, SpaceRecord, Text, page_flag, soft_fault_answer};

use super::{guard, shared};
use crate::{
    address::{PageSize, PhysAddr, VirtAddr},
    error::{Stop, StopCause},
    memory::PhysicalMemory,
    paging::{self, AddressSpace, PageFlags, SoftFaultAnswer},
    plugin::wire::raw,
};

static TABLE: SoftFaultsTable = {
    let mut table = SoftFaultsTable::empty();
    table.clone = Some(shared::clone::<Resolver>);
    table.drop = Some(shared::drop_handle::<Resolver>);
    table.resolve = Some(resolve);
    table
};

/// Flags of both sides.
pub(in crate::plugin) const FLAGS: &[(PageFlags, u32)] = &[
    (PageFlags::WRITABLE, page_flag::WRITABLE),
    (PageFlags::USER, page_flag::USER),
    (PageFlags::NO_EXECUTE, page_flag::NO_EXECUTE),
    (PageFlags::ACCESSED, page_flag::ACCESSED),
    (PageFlags::DIRTY, page_flag::DIRTY),
    (PageFlags::GLOBAL, page_flag::GLOBAL),
];

/// Who answers, and the memory that it may look into. A handle's context is an `Arc` of this.
struct Resolver {
    answers: Arc<dyn paging::SoftFaults>,
    memory: Arc<dyn PhysicalMemory>,
}

/// A space's record, and what it points to.
pub(super) struct Space {
    record: SpaceRecord,
    /// Keeps the context in the record alive.
    #[expect(dead_code, reason = "the record points to it")]
    resolver: Option<Arc<Resolver>>,
}

// SAFETY: the record points to a static text and to the resolver, which is `Send` and `Sync`.
unsafe impl Send for Space {}
// SAFETY: as above.
unsafe impl Sync for Space {}

impl Space {
    /// The record of a space over `memory`.
    pub(super) fn new(space: &AddressSpace, memory: &Arc<dyn PhysicalMemory>) -> Self {
        let resolver =
            space.soft_faults().map(|answers| Arc::new(Resolver { answers: answers.clone(), memory: memory.clone() }));
        let mut record = SpaceRecord::empty();
        record.architecture = Text::new(space.architecture().name);
        record.root = space.root().as_u64();
        if let Some(resolver) = &resolver {
            record.soft_faults =
                SoftFaults { context: Arc::as_ptr(resolver).cast_mut().cast(), table: Grows::new(&TABLE) };
        }
        Self { record, resolver }
    }

    /// The record; it stays for as long as this lives.
    pub(super) fn record(&self) -> Grows<SpaceRecord> {
        Grows::new(&self.record)
    }
}

unsafe extern "C" fn resolve(context: *mut c_void, faults: *mut SoftFault, count: usize) {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let resolver = unsafe { shared::get::<Resolver>(context) };
    // SAFETY: the ABI's contract: the questions are the callee's for the call.
    let Some(wires) = (unsafe { raw::items_mut(faults, count) }) else { return };
    let asked = guard::quietly(None, || {
        let mut faults: Vec<paging::SoftFault> = wires.iter().map(question).collect();
        resolver.answers.resolve(&*resolver.memory, &mut faults);
        Some(faults)
    });
    let mut answers = asked.iter().flatten().map(|fault| fault.answer);
    for wire in wires {
        answer(wire, answers.next().unwrap_or(SoftFaultAnswer::Panicked));
    }
}

fn question(wire: &SoftFault) -> paging::SoftFault {
    paging::SoftFault {
        addr: VirtAddr::new(wire.address),
        stop: Stop {
            level: u8::try_from(wire.level).unwrap_or(u8::MAX),
            table: PhysAddr::new(wire.table),
            entry: wire.entry,
            cause: StopCause::NotPresent,
        },
        page: u8::try_from(wire.page_shift).ok().and_then(PageSize::from_shift).unwrap_or(PageSize::KIB_4),
        answer: SoftFaultAnswer::NotMapped,
    }
}

fn answer(wire: &mut SoftFault, answer: SoftFaultAnswer) {
    match answer {
        SoftFaultAnswer::NotMapped => wire.answer = soft_fault_answer::NOT_MAPPED,
        SoftFaultAnswer::PagedOut => wire.answer = soft_fault_answer::PAGED_OUT,
        SoftFaultAnswer::Panicked => wire.answer = soft_fault_answer::PANICKED,
        SoftFaultAnswer::Page { base, flags } => {
            wire.answer = soft_fault_answer::PAGE;
            wire.base = base.as_u64();
            wire.flags = FLAGS.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |all, (_, bit)| all | bit);
        }
    }
}
