//! The page in the first MiB with which Windows starts processors (`PROCESSOR_START_BLOCK`), x64.
//!
//! Owns: how that page looks. Must not know: who uses what it holds.
//! Keeps: only memory below the video memory is read; a page that cannot be read is none.
//! Source: the structure as memflow, MemProcFS and Volatility know it: a jump over its data, the target in long mode at 0x70, CR3 at 0xa0.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    PhysAddr, VirtAddr,
    memory::{PhysRead, PhysicalMemory},
    paging::{AddressSpace, x86},
};

use super::search::{Candidate, Hint};
use crate::bytes::Bytes;

/// Pages before this address are looked at; behind it lies video memory.
const END: u64 = 0xa_0000;
/// Bytes of the structure that are read.
const LEN: usize = 0xa8;

/// What the pages in low memory tell: roots, and for each an address in the kernel or the HAL.
pub(super) fn find(memory: &dyn PhysicalMemory) -> Vec<(Candidate, Hint)> {
    let pages = || (0x1000..END).step_by(0x1000).map(PhysAddr::new);
    let mut starts: Vec<[u8; LEN]> = pages().map(|_| [0; LEN]).collect();
    let mut ops: Vec<PhysRead<'_>> =
        starts.iter_mut().zip(pages()).map(|(start, page)| PhysRead::new(page, start)).collect();
    // A page that cannot be read stays zero, which is no start block.
    let _ = memory.read_batch(&mut ops);
    drop(ops);
    let found = starts.iter().zip(pages()).filter_map(|(start, page)| {
        let (root, target) = parse(start)?;
        let what = format!("start block of processors at physical {page}");
        Some((Candidate::new(what, AddressSpace::new(&x86::X64, root)), Hint::new("the start block", target)))
    });
    found.collect()
}

/// CR3 and the target of the jump to long mode.
fn parse(start: &[u8]) -> Option<(u64, VirtAddr)> {
    let bytes = Bytes(start);
    let (jump, target, root) = (bytes.u64(0)?, bytes.u64(0x70)?, bytes.u64(0xa0)?);
    let is_jump = jump & 0xffff_ffff_ffff_00ff == 0x0000_0001_0006_00e9;
    let is_target = target & 0xffff_f800_0000_0003 == 0xffff_f800_0000_0000;
    let is_root = root & 0xffff_ff00_0000_0fff == 0 && root != 0;
    (is_jump && is_target && is_root).then_some((root, VirtAddr::new(target)))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn start_block_is_recognised_by_all_three() {
        let mut page = vec![0; LEN];
        page[..8].copy_from_slice(&0x0000_0001_0006_42e9_u64.to_le_bytes());
        page[0x70..0x78].copy_from_slice(&0xffff_f803_1234_5678_u64.to_le_bytes());
        page[0xa0..0xa8].copy_from_slice(&0x1a_d000_u64.to_le_bytes());
        assert_eq!(parse(&page), Some((0x1a_d000, VirtAddr::new(0xffff_f803_1234_5678))));
        for at in [2, 0x77, 0xa0] {
            let mut page = page.clone();
            page[at] ^= 0x11;
            assert_eq!(parse(&page), None, "{at:#x}");
        }
        assert_eq!(parse(&page[..0xa0]), None);
    }
}
