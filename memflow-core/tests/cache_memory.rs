//! What a page cache and a lookaside cost: a hit allocates nothing, and their sizes bound what they ever hold.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
    time::Duration,
};

use memflow_core::{
    PhysAddr, PhysicalMemory, VirtAddr,
    memory::{
        BufferMemory, CacheConfig, CacheLayer, DelayLayer, LookasideConfig, LookasideLayer, PhysRead,
        PhysicalMemoryExt, RunMap, SourceConfig, TargetFacts, Validity,
    },
    paging::{AddressSpace, TranslateOp, x86},
};

/// The system's allocator, with a count of what this thread asked of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain cells that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get() + layout.size() as isize);
        MOST.set(MOST.get().max(HELD.get()));
        // SAFETY: the contract of this function is that of the one called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        // SAFETY: `ptr` came from `alloc` above, so from the system's allocator, with the same layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Frozen memory of `pages` pages that has to be called.
fn device(pages: usize) -> Arc<dyn PhysicalMemory> {
    let runs = RunMap::flat(pages as u64 * 4096);
    let config = SourceConfig { name: "test".into(), runs, facts: TargetFacts::default() };
    Arc::new(
        DelayLayer::new(Arc::new(BufferMemory::new(config, vec![7; pages * 4096]).unwrap()), Duration::ZERO).unwrap(),
    )
}

#[test]
fn hits_allocate_nothing() {
    let validity = Validity::For(Duration::from_secs(3600));
    let cache = CacheLayer::new(device(64), CacheConfig { validity, ..CacheConfig::default() }).unwrap();
    let (mut word, mut page) = ([0; 8], [0; 5000]);
    cache.read_into(PhysAddr::new(0x800), &mut page).unwrap();
    let before = ALLOCATIONS.get();
    for at in 0x800..0x900 {
        cache.read_into(PhysAddr::new(at), &mut word).unwrap();
        let mut ops = [PhysRead::new(PhysAddr::new(at), &mut page), PhysRead::new(PhysAddr::new(at), &mut word)];
        cache.read_batch(&mut ops).unwrap();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn capacity_bounds_pages_records_and_pages_on_their_way() {
    let pages = 4096;
    let device = device(pages);
    for (capacity, page_size) in [(1 << 20, 4096), (100_000, 4096), (16_384, 4096), (60_000, 512), (2048, 512)] {
        let start = HELD.get();
        MOST.set(start);
        let config = CacheConfig { capacity, page_size, validity: Validity::Forever };
        let cache = CacheLayer::new(device.clone(), config).unwrap();
        // One at a time: nothing but the cache's own memory and the lists of one missing part.
        for page in 0..pages as u64 {
            cache.read_into(PhysAddr::new(page * 4096 + 8), &mut [0; 8]).unwrap();
        }
        let held = HELD.get() - start;
        assert!(held as u64 <= capacity, "{held} bytes for {config:?}");
        assert!(held as u64 * 5 > capacity * 2, "only {held} bytes for {config:?}");
        // All at once: the lists of the batch are the caller's doing, some hundred bytes for each operation.
        let mut bufs = vec![[0; 8]; pages];
        let at = |index: usize| PhysAddr::new(index as u64 * 4096 + 16);
        let mut ops: Vec<_> = bufs.iter_mut().enumerate().map(|(index, buf)| PhysRead::new(at(index), buf)).collect();
        let lists = HELD.get() - start - held;
        cache.read_batch(&mut ops).unwrap();
        let most = MOST.get() - start - lists;
        assert!(most as u64 <= capacity + 600 * pages as u64, "{most} bytes for {config:?}");
        drop(ops);
        assert!((HELD.get() - start) as u64 <= capacity + 8 * pages as u64, "{config:?}");
        assert_eq!(bufs, vec![[7; 8]; pages]);
        drop((cache, bufs));
        assert_eq!(HELD.get(), start, "{config:?}");
    }
}

/// Memory with tables of 32-bit x86 for its first 4 MiB, each page at 0x3000.
fn tables() -> Arc<dyn PhysicalMemory> {
    let mut bytes = vec![0; 0x4000];
    bytes[0x1000..0x1004].copy_from_slice(&0x2003_u32.to_le_bytes());
    for entry in bytes[0x2000..0x3000].chunks_exact_mut(4) {
        entry.copy_from_slice(&0x3003_u32.to_le_bytes());
    }
    let config = SourceConfig { name: "test".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
    Arc::new(DelayLayer::new(Arc::new(BufferMemory::new(config, bytes).unwrap()), Duration::ZERO).unwrap())
}

#[test]
fn known_page_is_found_without_allocating() {
    let memory = LookasideLayer::over(tables());
    let space = AddressSpace::new(&x86::X86, 0x1000);
    let translate = |page: u64| space.translate(&*memory, VirtAddr::new(page << 12)).unwrap().phys;
    (0..1024).for_each(|page| assert_eq!(translate(page), PhysAddr::new(0x3000)));
    let before = ALLOCATIONS.get();
    (0..1024).for_each(|page| assert_eq!(translate(page), PhysAddr::new(0x3000)));
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn answers_take_what_their_number_says_from_the_first_use_on() {
    for answers in [1, 100, 4096] {
        let (below, start) = (tables(), HELD.get());
        let config = LookasideConfig { answers, validity: Validity::Forever };
        let memory = LookasideLayer::new(below.clone(), config).unwrap();
        assert!(HELD.get() - start < 1024, "nothing before it is used");
        for root in [0x1000_u64, 0x0, 0x2000] {
            let space = AddressSpace::new(&x86::X86, root);
            let mut ops: Vec<_> = (0..4096).map(|page| TranslateOp::new(VirtAddr::new(page << 12))).collect();
            space.translate_batch(&memory, &mut ops);
        }
        let held = (HELD.get() - start) as usize;
        // At least a set of sixteen of each kind.
        assert!(held <= answers * 52 + 3 * 640, "{held} bytes for {answers} answers");
        drop((memory, below));
    }
}
