//! Address spaces of the other side: walked on this side, with the other one asked about entries that are not present.
//!
//! Must not know: operating systems, processes.

use std::{ffi::c_void, sync::Arc};

use memflow_abi::{SoftFault, SoftFaults, SoftFaultsTable, SpaceRecord, soft_fault_answer};
use smallvec::SmallVec;

use super::handle::{Handle, broken, required};
use crate::{
    address::PhysAddr,
    error::Result,
    memory::PhysicalMemory,
    paging::{self, AddressSpace, PageFlags, SoftFaultAnswer},
    plugin::{
        export::FLAGS,
        wire::{raw, records},
    },
};

/// The space of a record.
///
/// # Errors
/// When this build does not know its paging mode, or who answers for it cannot be used.
///
/// # Safety
/// The record is whole, and its functions are as the ABI says.
pub(super) unsafe fn space(record: &SpaceRecord, who: &str) -> Result<AddressSpace> {
    // SAFETY: the caller's promise.
    let name = unsafe { raw::string(record.architecture) };
    let space = AddressSpace::new(records::architecture(&name)?, record.root);
    if record.soft_faults.table.is_null() {
        return Ok(space);
    }
    // SAFETY: the caller's promise.
    let resolver = unsafe { resolver(record.soft_faults, who) }?;
    Ok(space.with_soft_faults(Arc::new(resolver)))
}

/// # Safety
/// The handle is one of a record: it is borrowed, and its functions are as the ABI says.
unsafe fn resolver(source: SoftFaults, who: &str) -> Result<Foreign> {
    // SAFETY: the caller's promise.
    let table = unsafe { raw::structure::<SoftFaultsTable>(source.table) };
    let table = table.ok_or_else(|| broken(who, "the table of its soft faults cannot be used"))?;
    let clone = required(who, "clone", table.clone)?;
    let drop = required(who, "drop", table.drop)?;
    let resolve = required(who, "resolve", table.resolve)?;
    // SAFETY: a function of the table with its context.
    let context = unsafe { clone(source.context) };
    // SAFETY: the context is a new one, and this is the function that gives it up.
    let handle = unsafe { Handle::new(context, drop) };
    Ok(Foreign { handle, resolve })
}

/// Questions that most batches do not exceed: they need no allocation.
const FEW: usize = 4;

/// Who answers on the other side.
struct Foreign {
    handle: Handle,
    resolve: unsafe extern "C" fn(*mut c_void, *mut SoftFault, usize),
}

impl paging::SoftFaults for Foreign {
    fn resolve(&self, _: &dyn PhysicalMemory, faults: &mut [paging::SoftFault]) {
        let question = |fault: &paging::SoftFault| SoftFault {
            address: fault.addr.as_u64(),
            table: fault.stop.table.as_u64(),
            entry: fault.stop.entry,
            level: fault.stop.level.into(),
            page_shift: fault.page.bytes().trailing_zeros(),
            answer: soft_fault_answer::NOT_MAPPED,
            flags: 0,
            base: 0,
        };
        let mut wires: SmallVec<[SoftFault; FEW]> = faults.iter().map(question).collect();
        // SAFETY: a function of the handle's table with its context; the questions are the callee's for the call.
        unsafe { (self.resolve)(self.handle.context(), wires.as_mut_ptr(), wires.len()) };
        for (fault, wire) in faults.iter_mut().zip(&wires) {
            fault.answer = answer(wire);
        }
    }
}

fn answer(wire: &SoftFault) -> SoftFaultAnswer {
    match wire.answer {
        soft_fault_answer::PAGE => {
            let mut flags = PageFlags::empty();
            for (flag, bit) in FLAGS {
                flags.set(*flag, wire.flags & bit != 0);
            }
            SoftFaultAnswer::Page { base: PhysAddr::new(wire.base), flags }
        }
        soft_fault_answer::PAGED_OUT => SoftFaultAnswer::PagedOut,
        soft_fault_answer::PANICKED => SoftFaultAnswer::Panicked,
        // An answer of a later version is one that does not help here.
        _ => SoftFaultAnswer::NotMapped,
    }
}
