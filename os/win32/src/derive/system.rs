//! The process System: its structure in memory, whatever is known of where processes lie.
//!
//! Owns: the ways to it, and what counts as it. Must not know: any member but those that never moved.
//! Keeps: a structure counts when it is a process object with System's name in it; pointers are looked at in batches, each once.
//! Source: `DISPATCHER_HEADER`, whose first byte is 3 for a process; `_KPROCESS.ProfileListHead` behind it, which is empty unless
//! somebody profiles.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, VirtAddr, memory::ViewRead};

use super::process::LEN;
use crate::{bytes::Bytes, kdbg::Kdbg, kernel::Kernel, reader::Reader, structure::Structure};

/// First byte of an object that is a process.
const PROCESS: u8 = 3;
/// Pointers in the kernel's data that are looked at; the largest kernels have some 20000.
const MAX_POINTERS: usize = 1 << 18;
/// Objects that are read at a time.
const AT_ONCE: usize = 1024;
/// Bytes of an object that tell whether it may be a process.
const HEAD: usize = 0x28;

/// System, by the variable that leads to it, by the head of the list of processes, or by any pointer to it in the kernel's data.
pub(super) fn find(kernel: &Kernel) -> Option<Structure> {
    let reader = Reader::new(&kernel.view);
    let exported = || {
        let at = reader.pointer(kernel.symbol("PsInitialSystemProcess")?, 0).ok()?;
        system(&reader, at)
    };
    exported().or_else(|| by_list(kernel)).or_else(|| by_pointers(kernel))
}

/// The structure at an address, if it is System.
fn system(reader: &Reader<'_>, at: VirtAddr) -> Option<Structure> {
    if !reader.is_kernel(at) {
        return None;
    }
    let bytes = Structure::read(reader.view(), at, LEN).ok()?;
    let has_name = (0..LEN).step_by(4).any(|offset| bytes.slice(offset, 7).is_ok_and(|text| text == b"System\0"));
    has_name.then_some(bytes)
}

/// System as the first of the list of processes: its links are that far from a process object's start as nobody knows.
fn by_list(kernel: &Kernel) -> Option<Structure> {
    let reader = Reader::new(&kernel.view);
    let named = kernel.kdbg.as_ref().and_then(Kdbg::active_processes);
    let head = named.or_else(|| kernel.memory.facts().windows.and_then(|windows| windows.active_processes))?;
    let (first, _) = reader.links(head).ok()?;
    if !reader.is_kernel(first) || !reader.links(first).is_ok_and(|(_, back)| back == head) {
        return None;
    }
    let starts = (0x40..LEN).step_by(8).map(|distance| first.wrapping_sub(distance));
    let starts: Vec<VirtAddr> = starts.collect();
    processes(&reader, &starts).into_iter().find_map(|at| system(&reader, at))
}

/// System by the pointers that the kernel's data holds: `PsInitialSystemProcess` is one of them, whatever tables are missing.
fn by_pointers(kernel: &Kernel) -> Option<Structure> {
    let image = kernel.image.as_ref()?;
    let reader = Reader::new(&kernel.view);
    let width = kernel.view.metadata().pointer_size;
    let mut pointers = Vec::new();
    for section in image.sections.iter().filter(|section| section.is_writable()) {
        let bytes = image.readable(&kernel.view, section);
        let size = usize::from(width);
        let words = bytes.chunks_exact(size).filter_map(|word| Bytes(word).pointer(0, width));
        let outside = words.map(VirtAddr::new).filter(|at| reader.is_kernel(*at) && !image.contains(*at));
        pointers.extend(outside.filter(|at| at.as_u64() % 8 == 0).take(MAX_POINTERS.saturating_sub(pointers.len())));
    }
    pointers.sort_unstable();
    pointers.dedup();
    processes(&reader, &pointers).into_iter().find_map(|at| system(&reader, at))
}

/// Those of some addresses where process objects are.
fn processes(reader: &Reader<'_>, addresses: &[VirtAddr]) -> Vec<VirtAddr> {
    let size = reader.pointer_size();
    let list = reader.either(0x18, 0x10);
    let mut found = Vec::new();
    for part in addresses.chunks(AT_ONCE) {
        let mut heads = vec![[0; HEAD]; part.len()];
        let mut ops: Vec<ViewRead<'_>> =
            heads.iter_mut().zip(part).map(|(head, at)| ViewRead::new(*at, head.as_mut_slice())).collect();
        // What cannot be read stays zero, which is no object.
        let _ = reader.view().read_batch(&mut ops);
        drop(ops);
        found.extend(heads.iter().zip(part).filter_map(|(head, at)| {
            let bytes = Bytes(head);
            let width = u8::try_from(size).ok()?;
            let own = at.wrapping_add(list).as_u64();
            let links = (bytes.pointer(list, width)?, bytes.pointer(list.saturating_add(size), width)?);
            let [kind]: [u8; 1] = bytes.array(0)?;
            (kind & 0x7f == PROCESS && links == (own, own)).then_some(*at)
        }));
    }
    found
}
