//! The cache while several threads use it, and while a call of the memory below is under way.
//!
//! Owns: interleavings, forced and free. Must not know: slots, locks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;

type Hook = Box<dyn FnOnce() + Send>;

/// Memory that does something of the test's choice at the end of its next call, when the bytes are already read or written.
struct Interrupted {
    inner: LockedMemory,
    hook: Mutex<Option<Hook>>,
}

impl Interrupted {
    fn interrupt(&self) {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

impl PhysicalMemory for Interrupted {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        let result = self.inner.read_batch(ops);
        self.interrupt();
        result
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        let result = self.inner.write_batch(ops);
        self.interrupt();
        result
    }

    fn metadata(&self) -> Metadata {
        self.inner.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.inner.facts()
    }
}

fn interrupted() -> (Arc<Interrupted>, Arc<CacheLayer>) {
    let memory = Arc::new(Interrupted { inner: flat(64), hook: Mutex::new(None) });
    let cache = Arc::new(CacheLayer::new(memory.clone(), room_for(16)).unwrap());
    (memory, cache)
}

fn interrupt_with(memory: &Interrupted, hook: impl FnOnce() + Send + 'static) {
    *memory.hook.lock().unwrap() = Some(Box::new(hook));
}

#[test]
fn page_fetched_before_a_write_is_not_kept_after_it() {
    let (memory, cache) = interrupted();
    let writer = cache.clone();
    interrupt_with(&memory, move || write(&*writer, 0x1000, &[9; 8]).unwrap());
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x1000, "what was read before the write");
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x0909_0909_0909_0909);
}

#[test]
fn page_fetched_before_a_flush_is_not_kept_after_it() {
    let (memory, cache) = interrupted();
    let (target, other) = (memory.clone(), cache.clone());
    interrupt_with(&memory, move || {
        write(&target.inner, 0x1000, &[9; 8]).unwrap();
        other.flush();
    });
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x1000, "what was read before the flush");
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x0909_0909_0909_0909);
}

#[test]
fn page_fetched_twice_at_once_is_held_once() {
    let (memory, cache) = interrupted();
    let other = cache.clone();
    interrupt_with(&memory, move || assert_eq!(word(&*other, 0x1008).unwrap(), 0x1008));
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x1000);
    assert_eq!(cache.stats().pages, 1);
}

#[test]
fn connector_that_panics_costs_no_room_and_leaves_nothing_stale() {
    let (memory, cache) = interrupted();
    for _ in 0..40 {
        interrupt_with(&memory, || panic!("the connector's own"));
        catch_unwind(AssertUnwindSafe(|| word(&*cache, 0x1000))).unwrap_err();
    }
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x1000);
    assert_eq!((cache.stats().pages, cache.stats().past_cache), (1, 0));
    interrupt_with(&memory, || panic!("the connector's own"));
    catch_unwind(AssertUnwindSafe(|| write(&*cache, 0x1000, &[9; 8]))).unwrap_err();
    assert_eq!(word(&*cache, 0x1000).unwrap(), 0x0909_0909_0909_0909);
}

#[test]
fn readers_never_go_back_behind_a_write_that_ended() {
    const COUNTED: u64 = 0x2ff8;
    let cache = CacheLayer::new(Arc::new(flat(64)), room_for(8)).unwrap();
    write(&cache, COUNTED, &0_u64.to_le_bytes()).unwrap();
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for seed in 0..3_u64 {
            let (cache, written, stop) = (&cache, &written, &stop);
            scope.spawn(move || {
                let mut page = seed;
                while !stop.load(Ordering::Relaxed) {
                    let least = written.load(Ordering::Acquire);
                    let found = word(cache, COUNTED).unwrap();
                    // The writer is at most one ahead of what it has announced.
                    assert!(found >= least, "{found} after {least} was written");
                    // Others come and go: the counted page has to be fetched again now and then.
                    page = page.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                    let other = (page >> 58) * PAGE + 0x10;
                    assert_eq!(word(cache, other).unwrap(), other);
                }
            });
        }
        for count in 1..=3000_u64 {
            write(&cache, COUNTED, &count.to_le_bytes()).unwrap();
            assert_eq!(word(&cache, COUNTED).unwrap(), count);
            written.store(count, Ordering::Release);
            if count % 500 == 0 {
                cache.flush();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
