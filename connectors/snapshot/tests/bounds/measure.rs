//! What opening a file costs: memory that this thread held and asked for, and the time that it worked.
//!
//! Owns: the bounds, and the clock of the thread. Must not know: formats.
//! Keeps: other threads and a busy machine change nothing in what is measured.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::heap;

/// Most memory that opening a damaged file may hold.
pub(crate) const MEMORY: u64 = 64 << 20;
/// Most time that opening one may take. Code that was not optimised gets ten times as much.
pub(crate) const TIME: Duration =
    if cfg!(debug_assertions) { Duration::from_millis(500) } else { Duration::from_millis(50) };

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
    let before = heap::begin();
    let started = worked();
    let done = work();
    let time = worked() - started;
    let memory = heap::peak() - before;
    (done, Cost { memory: memory.try_into().unwrap_or(0), time })
}

/// Does something that must stay within the bounds; `what` is named when it does not.
#[track_caller]
pub(crate) fn bounded<T>(what: impl FnOnce() -> String, work: impl FnOnce() -> T) -> T {
    bounded_with(0, what, work)
}

/// The same, with room for this much that a decoder reserves on the word of a header.
#[track_caller]
pub(crate) fn bounded_with<T>(reserved: u64, what: impl FnOnce() -> String, work: impl FnOnce() -> T) -> T {
    let (done, cost) = measured(work);
    assert!(cost.memory <= MEMORY + reserved && cost.time <= TIME, "{}: {cost:?}", what());
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
    assert!((1 << 20..(1 << 20) + 0x2000).contains(&cost.memory), "{cost:?}");
    let (_, cost) = measured(|| (0..100_000_000u64).fold(1u64, |sum, value| std::hint::black_box(sum ^ value)));
    assert!(cost.time > Duration::from_millis(10), "{cost:?}");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn what_libraries_in_c_hold_is_counted_too() {
    // The window of 8 MiB that this frame asks for; xz asks for its dictionary of 1 MiB.
    let noise = crate::common::noise(1, 0x1000);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(23).unwrap();
    std::io::Write::write_all(&mut encoder, &noise).unwrap();
    let frame = encoder.finish().unwrap();
    let xz = crate::common::packed::xz(&noise, None);
    for (bytes, least) in [(frame, 8 << 20), (xz, 1 << 20)] {
        let options = memflow_snapshot::OpenOptions::default();
        let (opened, cost) = measured(|| memflow_snapshot::open_bytes("c", &bytes, &options));
        opened.unwrap();
        assert!((least..2 * least + (2 << 20)).contains(&cost.memory), "{cost:?}");
    }
}
