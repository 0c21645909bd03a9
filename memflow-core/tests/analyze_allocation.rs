//! No number in a file makes the analyser allocate more than the bytes that are there can justify.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use memflow_core::plugin::{
    analyze::{HostAbi, analyze},
    descriptor::AbiVersion,
};

/// The system's allocator, with how much it has lent, and the most that was at one time.
struct Watched;

static LENT: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn lend(size: usize) {
    let lent = LENT.fetch_add(size, Ordering::Relaxed).wrapping_add(size);
    MOST.fetch_max(lent, Ordering::Relaxed);
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        lend(layout.size());
        // SAFETY: the caller keeps the contract of this method, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        lend(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        lend(size);
        LENT.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LENT.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Room for texts and small lists.
const FIXED: usize = 16 << 10;

// One test, as the watch is on the whole process.
#[test]
fn most_memory_at_one_time_is_in_proportion_to_the_bytes_that_are_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/plugins");
    for (name, target) in [
        ("x86_64-unknown-linux-gnu.so", "x86_64-unknown-linux-gnu"),
        ("s390x-unknown-linux-gnu.so", "s390x-unknown-linux-gnu"),
        ("i686-pc-windows-gnu.dll", "i686-pc-windows-gnu"),
        ("x86_64-apple-darwin.dylib", "x86_64-apple-darwin"),
    ] {
        let good = fs::read(folder.join(name)).unwrap();
        let host = HostAbi { version: AbiVersion::new(1, 1), target };
        let mut bytes = good.clone();
        let limit = FIXED + 2 * good.len();
        for at in (0..good.len() - 8).step_by(2).filter(|at| good[*at..*at + 8] != [0; 8]) {
            for value in [0xffff, 0x4000_0000, 0xffff_ffff, 1 << 33, 1 << 60, u64::MAX] {
                for width in [2, 4, 8] {
                    for field in [u64::to_le_bytes(value), u64::to_be_bytes(value)] {
                        let field = if field[0] == 0 { &field[8 - width..] } else { &field[..width] };
                        bytes[at..at + width].copy_from_slice(field);
                        let before = LENT.load(Ordering::Relaxed);
                        MOST.store(before, Ordering::Relaxed);
                        drop(analyze(&bytes, &host));
                        let most = MOST.load(Ordering::Relaxed) - before;
                        assert!(most <= limit, "{name}: {most:#x} bytes for {value:#x} at {at:#x}");
                    }
                    bytes[at..at + width].copy_from_slice(&good[at..at + width]);
                }
            }
        }
    }
}
