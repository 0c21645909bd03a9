//! The seven defects that memflow 0.2.4 had in its page cache.
//!
//! Owns: a test for each, by its number in the list. Must not know: slots, locks.

use super::*;

#[test]
fn page_cache_defect_1_failed_call_loses_no_slot() {
    // Call 0 fetches, fails whole, and call 1 asks for the bytes themselves, which fails too.
    let memory = ScriptedMemory::new(flat(64)).with_failing_call(0).with_failing_call(1);
    let (memory, cache) = cached(memory, room_for(32));
    let mut bufs = [[0xaa; 8]; 32];
    let at = |index: usize| PhysAddr::new(index as u64 * PAGE);
    let mut ops: Vec<PhysRead<'_>> =
        bufs.iter_mut().enumerate().map(|(index, buf)| PhysRead::new(at(index), buf)).collect();
    let error = cache.read_batch(&mut ops).unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Io { errno: 5 }));
    assert!(ops.iter().all(|op| op.outcome == Outcome::Failed { offset: 0, reason: Reason::Io { errno: 5 } }));
    drop(ops);
    assert_eq!(bufs, [[0xaa; 8]; 32]);
    assert_eq!(memory.take_log().len(), 2);

    // The same pages are cached as if nothing had been.
    for page in 0..8 {
        assert_eq!(word(&cache, page * PAGE + 8).unwrap(), page * PAGE + 8);
    }
    assert_eq!(memory.take_log().len(), 8);
    for page in 0..8 {
        word(&cache, page * PAGE).unwrap();
    }
    assert_eq!(memory.call_count(), 0);
}

#[test]
fn page_cache_defect_1_call_without_answers_is_named_and_not_kept() {
    let memory = ScriptedMemory::new(flat(4)).with_silent_call(0).with_silent_call(1);
    let (memory, cache) = cached(memory, room_for(16));
    let error = word(&cache, 0x1000).unwrap_err();
    assert!(matches!(&error, Error::Unanswered { who, index: 0 } if who == "locked memory"), "{error}");
    assert_eq!(word(&cache, 0x1000).unwrap(), 0x1000);
    assert_eq!(word(&cache, 0x1008).unwrap(), 0x1008);
    assert_eq!(memory.call_count(), 3);
}

/// Memory that fails with an error of its own, and with no outcomes or with good ones.
struct Refusing(Outcome);

impl PhysicalMemory for Refusing {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        ops.iter_mut().for_each(|op| op.outcome = self.0);
        Err(Error::Cancelled)
    }

    fn write_batch(&self, _: &mut [PhysWrite<'_>]) -> Result<()> {
        Err(Error::Cancelled)
    }

    fn metadata(&self) -> Metadata {
        flat(4).metadata()
    }

    fn facts(&self) -> &TargetFacts {
        const { &TargetFacts { machine: None, vcpus: Vec::new(), vmcoreinfo: None, directory_table: None, windows: None } }
    }
}

#[test]
fn page_cache_defect_1_error_without_an_outcome_is_handed_on_and_its_bytes_are_not() {
    for outcome in [Outcome::NotAttempted, Outcome::Done] {
        let cache = CacheLayer::new(Arc::new(Refusing(outcome)), room_for(64)).unwrap();
        // Fetched, past the cache, and in no run.
        for (addr, len) in [(0x1000, 8), (0, 0x4000), (0x8000, 8)] {
            let mut buf = vec![0; len];
            let mut ops = [PhysRead::new(PhysAddr::new(addr), &mut buf)];
            assert!(matches!(cache.read_batch(&mut ops), Err(Error::Cancelled)), "{outcome:?} {addr:#x}");
            assert_eq!(ops[0].outcome, Outcome::NotAttempted);
        }
        assert_eq!(cache.stats().pages, 0);
        assert!(matches!(write(&cache, 0, &[1]), Err(Error::Cancelled)));
    }
}

#[test]
fn page_cache_defect_2_page_backed_in_part_serves_what_is_there() {
    // By the runs: 0x2000 to 0x2800 and 0x2a00 to 0x2c80 of one page.
    let (memory, cache) = cached(ScriptedMemory::new(odd_memory()), room_for(16));
    for _ in 0..2 {
        for (addr, len) in [(0x2000, 0x800), (0x27ff, 1), (0x2a00, 0x280), (0x2c7f, 1)] {
            assert_eq!(bytes(&cache, addr, len), bytes(&odd_memory(), addr, len), "{addr:#x}");
        }
    }
    assert_eq!(memory.call_count(), 2);

    // By the device: the page has a byte that cannot be read, and the runs do not say so.
    let memory = ScriptedMemory::new(flat(4)).with_failing_addresses(range(0x1800, 1));
    let (memory, cache) = cached(memory, room_for(16));
    assert_eq!(word(&cache, 0x1ff8).unwrap(), 0x1ff8);
    assert_eq!(memory.take_log(), [read(1, PAGE), read(1, 8)]);
    // What came before it was kept.
    assert_eq!(word(&cache, 0x17f8).unwrap(), 0x17f8);
    assert_eq!(memory.call_count(), 0);
    let mut buf = [0xaa; 16];
    let mut ops = [PhysRead::new(PhysAddr::new(0x17f8), &mut buf)];
    cache.read_batch(&mut ops).unwrap_err();
    assert_eq!(ops[0].outcome, Outcome::Failed { offset: 8, reason: Reason::Io { errno: 5 } });
    assert_eq!(buf, [0xf8, 0x17, 0, 0, 0, 0, 0, 0, 0xaa, 0x18, 0, 0, 0, 0, 0, 0]);
}

fn bytes(memory: &dyn PhysicalMemory, addr: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    memory.read_into(PhysAddr::new(addr), &mut buf).unwrap();
    buf
}

#[test]
fn page_cache_defect_3_run_that_ends_inside_a_page_ends_there() {
    let (memory, cache) = cached(frozen(PAGE + 0x123), room_for(16));
    let mut buf = [0xaa; 0x200];
    for _ in 0..2 {
        let mut ops = [PhysRead::new(PhysAddr::new(PAGE + 0x100), &mut buf)];
        let error = cache.read_batch(&mut ops).unwrap_err();
        assert!(error.is_not_in_image(), "{error}");
        let reason = Reason::NotInImage { phys: PhysAddr::new(PAGE + 0x123) };
        assert_eq!(ops[0].outcome, Outcome::Failed { offset: 0x23, reason });
        assert_eq!((buf[0x22], buf[0x23]), (7, 0xaa));
        assert_eq!(word(&cache, PAGE + 0x11b).unwrap(), 0x0707_0707_0707_0707);
    }
    assert_eq!(memory.take_log(), [read(1, 0x200), read(1, 0x123), read(1, 0x200)]);
}

#[test]
fn page_cache_defect_4_page_split_over_two_runs_is_one_page() {
    let (memory, cache) = cached(ScriptedMemory::new(odd_memory()), room_for(16));
    assert_eq!(bytes(&cache, 0x33fc, 8), bytes(&odd_memory(), 0x33fc, 8));
    assert_eq!(memory.take_log(), [read(1, PAGE)]);
    assert_eq!(bytes(&cache, 0x3000, 0x1000), bytes(&odd_memory(), 0x3000, 0x1000));
    assert_eq!(memory.call_count(), 0);
}

#[test]
fn page_cache_defect_5_own_write_is_read_back() {
    let memory = ScriptedMemory::new(flat(16)).with_failing_addresses(range(0x5800, 8));
    let (memory, cache) = cached(memory, room_for(64));
    for page in 0..16 {
        word(&cache, page * PAGE).unwrap();
    }
    // Inside a page, over an edge, over many pages.
    for (addr, len) in [(0x1008, 8), (0x2ffc, 8), (0x7ff8, 0x5010)] {
        write(&cache, addr, &vec![0xee; len]).unwrap();
        assert_eq!(bytes(&cache, addr, len), vec![0xee; len], "{addr:#x}");
    }
    // A write that fails in part, and one that runs over the end, changed what came before.
    assert_eq!(write(&cache, 0x57f8, &[0xdd; 16]).unwrap_err().reason(), Some(Reason::Io { errno: 5 }));
    assert_eq!(word(&cache, 0x57f8).unwrap(), 0xdddd_dddd_dddd_dddd);
    assert!(write(&cache, 0xfff8, &[0xcc; 16]).unwrap_err().is_not_in_image());
    assert_eq!(word(&cache, 0xfff8).unwrap(), 0xcccc_cccc_cccc_cccc);
    // Pages beside the written ones stay.
    memory.take_log();
    assert_eq!(word(&cache, 0x4010).unwrap(), 0x4010);
    assert_eq!(memory.call_count(), 0);
}

#[test]
fn page_cache_defect_5_write_at_the_last_address_is_read_back() {
    let (_, cache) = cached(ScriptedMemory::new(odd_memory()), room_for(16));
    let last = u64::MAX - 7;
    word(&cache, last).unwrap();
    write(&cache, last, &[0x55; 16]).unwrap_err();
    assert_eq!(word(&cache, last).unwrap(), 0x5555_5555_5555_5555);
}

#[test]
fn page_cache_defect_6_capacity_below_a_page_is_refused() {
    let config = CacheConfig { capacity: 1024, ..CacheConfig::default() };
    let error = CacheLayer::new(Arc::new(flat(1)), config).unwrap_err();
    assert!(error.to_string().ends_with("found `1024`"), "{error}");
    let config = CacheConfig { page_size: 1000, ..CacheConfig::default() };
    assert!(matches!(CacheLayer::new(Arc::new(flat(1)), config), Err(Error::Argument { .. })));
}

#[test]
fn page_cache_defect_7_handles_share_pages_and_hits_are_counted() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(4)), room_for(16));
    let cache = Arc::new(cache);
    let other = cache.clone();
    word(&*cache, 0x1000).unwrap();
    let thread = std::thread::spawn(move || word(&*other, 0x1ff8).unwrap());
    assert_eq!(thread.join().unwrap(), 0x1ff8);
    assert_eq!(memory.call_count(), 1);
    assert_eq!((cache.stats().hits, cache.stats().misses), (1, 1));
}
