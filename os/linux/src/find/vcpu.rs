//! The kernel through a page-table root: of a vCPU, or given by the caller.
//!
//! Owns: which paging modes a root is tried in. Must not know: notes, how an image is searched.
//! Keeps: a root counts when the kernel's symbols are found through it and name the kernel's own root, which sees the same kernel.
//! Source: Intel SDM volume 3A, "Control Registers"; Linux `arch/x86/mm/pti.c` (the user half of a pair of roots is the second page).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    memory::{VcpuRegisters, X86Registers},
    paging::{AddressSpace, Architecture, x86},
    view::SpaceView,
};

use super::search::{Found, Search, describe};

/// CR0: paging is on.
const CR0_PAGING: u64 = 1 << 31;
/// CR4: five levels.
const CR4_LA57: u64 = 1 << 12;
/// EFER: long mode is active.
const EFER_LONG_MODE: u64 = 1 << 10;
/// With page-table isolation, the bit that tells the user's root from the kernel's.
const USER_HALF: u64 = 1 << 12;

/// The kernel that some vCPU has mapped.
pub(super) fn from_registers(search: &mut Search<'_>) -> Option<Found> {
    let memory = search.memory.clone();
    let mut tried = Vec::new();
    for (number, vcpu) in memory.facts().vcpus.iter().enumerate() {
        let registers = match vcpu {
            VcpuRegisters::X86(registers) => registers,
            _ => continue,
        };
        let what = format!("page tables of vCPU {number}");
        let Some(root) = registers.cr3 else { continue };
        let Some(archs) = modes(registers) else {
            search.tell(what, "not in long mode");
            continue;
        };
        // With page-table isolation and in user mode, the kernel's root is the page before; else a root as it is.
        for root in [root & !USER_HALF, root] {
            for arch in &archs {
                let space = AddressSpace::new(arch, root);
                if tried.contains(&space) {
                    continue;
                }
                tried.push(space.clone());
                if let Some(found) = attempt(search, &what, space) {
                    return Some(found);
                }
            }
        }
    }
    None
}

/// The kernel below a root that the caller gives.
pub(super) fn from_root(search: &mut Search<'_>, root: u64) -> Option<Found> {
    [&x86::X64, &x86::X64_LA57]
        .into_iter()
        .find_map(|arch| attempt(search, "page tables given by the caller", AddressSpace::new(arch, root)))
}

/// The paging modes that registers allow; `None` when it is none of long mode.
fn modes(registers: &X86Registers) -> Option<Vec<&'static Architecture>> {
    let off = |register: Option<u64>, bit: u64| register.is_some_and(|value| value & bit == 0);
    if off(registers.cr0, CR0_PAGING) || off(registers.efer, EFER_LONG_MODE) {
        return None;
    }
    Some(match registers.cr4 {
        Some(cr4) if cr4 & CR4_LA57 != 0 => vec![&x86::X64_LA57],
        Some(_) => vec![&x86::X64],
        None => vec![&x86::X64, &x86::X64_LA57],
    })
}

fn attempt(search: &mut Search<'_>, what: &str, space: AddressSpace) -> Option<Found> {
    let view = SpaceView::new(search.memory.clone(), space.clone());
    match search.kernel_in(&view) {
        Ok(found) => {
            let own = describe(&found.space);
            search.tell(what, format!("{}; kernel's own {own}; {}", describe(&space), found.symbols.describe()));
            Some(found)
        }
        Err(error) => {
            search.tell_refused(format!("{what}: {}", describe(&space)), error);
            None
        }
    }
}
