//! Page tables in place: what a single read costs, and what becomes of a walk when the file under it shrinks.
#![cfg(unix)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs::{self, OpenOptions},
    path::PathBuf,
    sync::Arc,
};

use memflow_core::{
    MemoryViewExt, PhysAddr, PhysicalMemory, Reason, VirtAddr,
    error::StopCause,
    memory::{BufferMemory, MapMode, MappedMemory, RunMap, SourceConfig, TargetFacts},
    paging::{AddressSpace, MaybePhys, TranslateOp, x86},
    view::SpaceView,
};

/// The system's allocator, with a count of what this thread asked of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain cell that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the contract of this function is that of the one called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, so from the system's allocator, with the same layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// Four tables at 0x1000 to 0x4000 that map two pages at address zero to 0x5000 and 0x7000; eight pages in all.
fn bytes() -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..0x8000 / 8).flat_map(|word: u64| (word * 8).to_le_bytes()).collect();
    for (table, next) in [(0x1000, 0x2007_u64), (0x2000, 0x3007), (0x3000, 0x4007), (0x4000, 0x5007)] {
        bytes[table..table + 0x1000].fill(0);
        bytes[table..table + 8].copy_from_slice(&next.to_le_bytes());
    }
    bytes[0x4008..0x4010].copy_from_slice(&0x7007_u64.to_le_bytes());
    bytes
}

fn config() -> SourceConfig {
    SourceConfig { name: "test".into(), runs: RunMap::flat(0x8000), facts: TargetFacts::default() }
}

fn space() -> AddressSpace {
    AddressSpace::new(&x86::X64, 0x1000)
}

#[test]
fn single_reads_and_walks_allocate_nothing() {
    let memory = Arc::new(BufferMemory::new(config(), bytes()).unwrap());
    let view = SpaceView::new(memory.clone(), space());
    let (mut word, mut page) = (0, [0; 0x1000]);
    let mut op = [TranslateOp::new(VirtAddr::new(0x1234))];
    let count = allocations(|| {
        word = view.read::<u64>(VirtAddr::new(0x1010)).unwrap();
        view.read_into(VirtAddr::new(0x18), &mut page[..8]).unwrap();
        // Over the edge of a page.
        view.read_into(VirtAddr::new(0x800), &mut page).unwrap();
        view.space().translate(&*memory, VirtAddr::new(0x1fff)).unwrap();
        view.space().translate_batch(&*memory, &mut op);
        view.space().translate(&*memory, VirtAddr::new(0x2000)).unwrap_err();
    });
    assert_eq!(count, 0);
    assert_eq!(word, 0x7010);
    assert_eq!(
        (page[..8].to_vec(), page[0x800..0x808].to_vec()),
        (0x5800u64.to_le_bytes().to_vec(), 0x7000u64.to_le_bytes().to_vec())
    );
    assert!(op[0].outcome.unwrap().is_ok());
}

#[test]
fn short_answers_and_values_allocate_nothing() {
    let memory = Arc::new(BufferMemory::new(config(), bytes()).unwrap());
    let view = SpaceView::new(memory.clone(), space());
    let addresses: Vec<_> = (0..1000).map(|number| VirtAddr::new(number % 2 * 0x1000 + number % 500 * 8)).collect();
    let (mut found, mut values) = (vec![MaybePhys::NONE; 1000], vec![0_u64; 1000]);
    let (mut missing, mut complete) = (1, false);
    let count = allocations(|| {
        missing = view.space().translate_to(&*memory, &addresses, &mut found);
        complete = view.read_values(&addresses, &mut values).is_ok_and(|read| read.is_complete());
    });
    assert_eq!((count, missing, complete), (0, 0, true));
    assert!(found.iter().zip(&values).all(|(found, value)| found.get().map(|phys| phys.as_u64()) == Some(*value)));
}

#[test]
fn table_lost_with_the_end_of_its_file_is_not_an_absent_entry() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("shrinking-tables-{}", std::process::id()));
    fs::write(&path, bytes()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let memory = Arc::new(MappedMemory::new(config(), &file, MapMode::Shared).unwrap());
    let view = SpaceView::new(memory.clone(), space());
    assert_eq!(view.read::<u64>(VirtAddr::new(0x1000)).unwrap(), 0x7000);

    // The second page goes first, the tables are still there.
    file.set_len(0x7000).unwrap();
    let error = view.read::<u64>(VirtAddr::new(0x1000)).unwrap_err();
    assert!(matches!(error.reason(), Some(Reason::Truncated { .. })), "{error}");
    assert_eq!(view.read::<u64>(VirtAddr::new(0)).unwrap(), 0x5000);

    // Then the table of the lowest level.
    file.set_len(0x4000).unwrap();
    let mut ops = [TranslateOp::new(VirtAddr::new(0)), TranslateOp::new(VirtAddr::new(1 << 40))];
    view.space().translate_batch(&*memory, &mut ops);
    let stops = ops.map(|op| match op.outcome {
        Some(Err(Reason::NotMapped(stop))) => (stop.level, stop.cause),
        other => panic!("{other:?}"),
    });
    assert_eq!(stops, [(1, StopCause::TableUnreadable), (4, StopCause::NotPresent)]);
    let mut found = [MaybePhys::new(PhysAddr::new(0)); 2];
    assert_eq!(view.space().translate_to(&*memory, &ops.map(|op| op.addr), &mut found), 2);
    assert_eq!(found, [MaybePhys::NONE; 2]);
    assert_eq!(view.space().over(&*memory).phys(VirtAddr::new(0)), None);
    let read = view.read_values(&[VirtAddr::new(0); 20], &mut [0_u64; 20]).unwrap();
    assert_eq!(read.missing.len(), 20);
    let single = view.space().translate(&*memory, VirtAddr::new(0)).unwrap_err();
    assert!(matches!(single, Reason::NotMapped(stop) if stop.cause == StopCause::TableUnreadable));
    assert!(view.read::<u64>(VirtAddr::new(0)).unwrap_err().is_not_mapped());
    let mut runs = 0;
    let summary = view
        .space()
        .map(&*memory, None, Default::default(), &mut |_| {
            runs += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((runs, summary.holes.len()), (0, 1), "{summary:?}");
    assert!(memory.direct_map().is_some());
    fs::remove_file(path).unwrap();
}
