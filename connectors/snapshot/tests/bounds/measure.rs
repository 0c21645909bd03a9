//! What opening a file costs: memory that this thread held and asked for, and the time that it worked.
//!
//! Owns: an allocator that counts for each thread, and the clock of the thread. Must not know: formats.
//! Keeps: other threads and a busy machine change nothing in what is measured.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Most memory that opening a damaged file may hold.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Most time that opening one may take. Code that was not optimised gets ten times as much.
pub(crate) const TIME: Duration =
    if cfg!(debug_assertions) { Duration::from_millis(500) } else { Duration::from_millis(50) };

/// The system's allocator, with what each thread has of it.
struct Counted;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// Adds to what this thread holds.
fn count(bytes: usize, sign: i64) {
    // A thread that ends has no counters any more.
    let _ended = HELD.try_with(|held| {
        held.set(held.get() + sign * i64::try_from(bytes).unwrap_or(i64::MAX));
        PEAK.try_with(|peak| peak.set(peak.get().max(held.get())))
    });
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps the contract of this method, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the bytes are copied.
        count(size, 1);
        count(layout.size(), -1);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// What some work cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Most bytes held at a time, beyond those held before.
    pub(crate) memory: u64,
    /// Time that the thread worked.
    pub(crate) time: Duration,
}

fn worked() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap())
}

/// Does something and says what it cost.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let before = HELD.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let started = worked();
    let done = work();
    let time = worked() - started;
    let memory = PEAK.with(Cell::get) - before;
    (done, Cost { memory: memory.try_into().unwrap_or(0), time })
}

/// Does something that must stay within the bounds; `what` is named when it does not.
#[track_caller]
pub(crate) fn bounded<T>(what: impl FnOnce() -> String, work: impl FnOnce() -> T) -> T {
    let (done, cost) = measured(work);
    assert!(cost.memory <= MEMORY && cost.time <= TIME, "{}: {cost:?}", what());
    done
}

#[test]
fn what_is_held_at_a_time_is_counted() {
    let (_, cost) = measured(|| {
        drop(vec![1u8; 1 << 20]);
        let mut grown = vec![1u8; 1000];
        grown.reserve_exact(1 << 16);
        grown.len()
    });
    assert_eq!(cost.memory, 1 << 20);
    let (_, cost) = measured(|| (0..100_000_000u64).fold(1u64, |sum, value| std::hint::black_box(sum ^ value)));
    assert!(cost.time > Duration::from_millis(10), "{cost:?}");
}
