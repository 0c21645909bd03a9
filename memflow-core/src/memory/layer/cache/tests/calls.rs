//! How often the memory below is called, and for what.
//!
//! Owns: call counts, validity, configuration. Must not know: slots, locks.

use super::*;

#[test]
fn missing_pages_of_a_batch_are_one_call_and_hits_are_none() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(64)), room_for(64));
    let addresses = [0x9000, 0x1008, 0x3ffc, 0x2000, 0x1010, 0x9ff8, 0x20010];
    for expected in [vec![read(3, 6 * PAGE)], vec![]] {
        let mut bufs = [[0; 8]; 7];
        let mut ops: Vec<PhysRead<'_>> =
            bufs.iter_mut().zip(addresses).map(|(buf, at)| PhysRead::new(PhysAddr::new(at), buf)).collect();
        cache.read_batch(&mut ops).unwrap();
        // Pages 1 to 4 in one piece, page 9, page 0x20.
        assert_eq!(memory.take_log(), expected);
        for (at, buf) in addresses.iter().zip(bufs) {
            assert_eq!(u64::from_le_bytes(buf), u64::from_le_bytes(plain(*at)), "{at:#x}");
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.past_cache, stats.pages), (8, 8, 0, 6));
}

fn plain(at: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    flat(64).read_into(PhysAddr::new(at), &mut bytes).unwrap();
    bytes
}

#[test]
fn whole_memory_that_fits_is_read_once() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(200)), CacheConfig::default());
    for _ in 0..3 {
        for page in 0..200 {
            assert_eq!(word(&cache, page * PAGE + 0x18).unwrap(), page * PAGE + 0x18);
        }
    }
    assert_eq!(memory.call_count(), 200);
}

#[test]
fn pages_used_last_stay_when_room_is_needed() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(1000)), room_for(64));
    for page in 1..1000 {
        word(&cache, page * PAGE).unwrap();
        word(&cache, 8).unwrap();
    }
    assert_eq!(memory.call_count(), 1000);
    assert!((32..64).contains(&cache.stats().pages), "{:?}", cache.stats());
}

#[test]
fn long_reads_go_past_the_cache_in_the_same_call() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(64)), room_for(64));
    let (mut long, mut short) = (vec![0; 0x4001], [0; 8]);
    let ops = &mut [PhysRead::new(PhysAddr::new(4), &mut long), PhysRead::new(PhysAddr::new(0x1_0000), &mut short)];
    cache.read_batch(ops).unwrap();
    assert_eq!(memory.take_log(), [read(2, 0x4001 + PAGE)]);
    assert_eq!((cache.stats().pages, cache.stats().past_cache), (1, 1));
    assert_eq!(long[4..12], 8_u64.to_le_bytes());
}

#[test]
fn batch_with_more_pages_than_room_is_still_one_call() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(256)), room_for(16));
    let mut bufs = [[0; 8]; 256];
    let at = |index: usize| PhysAddr::new(index as u64 * PAGE);
    let mut ops: Vec<PhysRead<'_>> =
        bufs.iter_mut().enumerate().map(|(index, buf)| PhysRead::new(at(index), buf)).collect();
    cache.read_batch(&mut ops).unwrap();
    // Four pages are on their way, the other 252 reads go past the cache.
    assert_eq!(memory.take_log(), [read(253, 4 * PAGE + 252 * 8)]);
    assert!(bufs.iter().enumerate().all(|(index, buf)| u64::from_le_bytes(*buf) == index as u64 * PAGE));
}

#[test]
fn bytes_in_no_run_are_asked_for_each_time_and_their_neighbours_are_not() {
    let (memory, cache) = cached(ScriptedMemory::new(odd_memory()), room_for(64));
    let (mut held, mut gap) = ([0; 0x800], [0; 0x800]);
    for expected in [vec![read(2, 0x800 + 0x800)], vec![read(1, 0x800)]] {
        let mut ops = [PhysRead::new(PhysAddr::new(0x2000), &mut held), PhysRead::new(PhysAddr::new(0x2800), &mut gap)];
        cache.read_batch(&mut ops).unwrap_err();
        let reason = Reason::NotInImage { phys: PhysAddr::new(0x2800) };
        assert_eq!([ops[0].outcome, ops[1].outcome], [Outcome::Done, Outcome::Failed { offset: 0, reason }]);
        assert_eq!(memory.take_log(), expected);
    }
}

#[test]
fn zero_length_and_empty_batches_call_nobody() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(4)), room_for(16));
    cache.read_batch(&mut []).unwrap();
    cache.read_into(PhysAddr::new(u64::MAX), &mut []).unwrap();
    cache.read_into(PhysAddr::new(0xdead_beef_0000), &mut []).unwrap();
    assert_eq!(memory.call_count(), 0);
}

#[test]
fn live_pages_grow_old_and_frozen_ones_do_not() {
    let short = Validity::For(Duration::from_millis(20));
    for (validity, live, calls) in [
        (Validity::ByLiveness, true, 2),
        (Validity::ByLiveness, false, 1),
        (short, false, 2),
        (Validity::Forever, true, 1),
    ] {
        let below: Arc<dyn PhysicalMemory> = if live { Arc::new(flat(4)) } else { Arc::new(frozen(4 * PAGE)) };
        let memory = Arc::new(ScriptedMemory::new(below));
        let cache = CacheLayer::new(memory.clone(), CacheConfig { validity, ..room_for(16) }).unwrap();
        word(&cache, 0x10).unwrap();
        std::thread::sleep(CacheLayer::LIVE_VALIDITY);
        word(&cache, 0x10).unwrap();
        assert_eq!(memory.call_count(), calls, "{validity:?}, live: {live}");
    }
}

#[test]
fn pages_are_served_to_so_many_batches() {
    let config = CacheConfig { validity: Validity::Batches(2), ..room_for(16) };
    let (memory, cache) = cached(ScriptedMemory::new(flat(4)), config);
    let calls = [(); 7].map(|()| {
        word(&cache, 0x18).unwrap();
        memory.call_count()
    });
    assert_eq!(calls, [1, 1, 1, 2, 2, 2, 3]);
}

#[test]
fn old_page_is_replaced_in_its_place() {
    let validity = Validity::For(Duration::from_nanos(1));
    let (memory, cache) = cached(ScriptedMemory::new(flat(4)), CacheConfig { validity, ..room_for(16) });
    for count in 1..100 {
        write(memory.inner(), 0x18, &u64::to_le_bytes(count)).unwrap();
        assert_eq!(word(&cache, 0x18).unwrap(), count);
    }
    assert_eq!(cache.stats().pages, 1);
}

#[test]
fn flush_forgets_everything_and_nothing_but_pages() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(8)), room_for(16));
    for page in 0..8 {
        word(&cache, page * PAGE).unwrap();
    }
    write(memory.inner(), 0x2000, &[1; 8]).unwrap();
    assert_eq!(word(&cache, 0x2000).unwrap(), 0x2000);
    cache.flush();
    assert_eq!(word(&cache, 0x2000).unwrap(), 0x0101_0101_0101_0101);
    word(&cache, 0x2008).unwrap();
    assert_eq!(memory.call_count(), 9);
}

#[test]
fn pages_that_others_wrote_to_are_forgotten_by_address() {
    let (memory, cache) = cached(ScriptedMemory::new(flat(8)), room_for(16));
    for page in 0..8 {
        word(&cache, page * PAGE).unwrap();
    }
    for page in [2, 3] {
        write(memory.inner(), page * PAGE, &[1; 8]).unwrap();
    }
    cache.forget(range(0x2ff8, 0x10));
    for page in 0..8 {
        let expected = if page == 2 || page == 3 { 0x0101_0101_0101_0101 } else { page * PAGE };
        assert_eq!(word(&cache, page * PAGE).unwrap(), expected);
    }
    assert_eq!(memory.call_count(), 10);
}

#[test]
fn sizes_that_make_no_cache_are_refused() {
    let new = |config| CacheLayer::new(Arc::new(flat(4)), config).map(|_| ()).map_err(|error| error.to_string());
    let default = CacheConfig::default();
    for page_size in [0, 1, 3, 256, 1000, 4095, 1 << 32, 1 << 63, u64::MAX] {
        let error = new(CacheConfig { page_size, ..default }).unwrap_err();
        assert!(error.starts_with("cache page size: expected a power of two from 512"), "{error}");
    }
    for capacity in [0, 1, 1024, 4 * PAGE - 1, CacheLayer::MOST_CAPACITY + 1, u64::MAX] {
        let error = new(CacheConfig { capacity, ..default }).unwrap_err();
        assert!(error.starts_with("cache capacity: expected 16384 (four pages) to"), "{error}");
    }
    for validity in [Validity::For(Duration::ZERO), Validity::Batches(0)] {
        assert_eq!(
            new(CacheConfig { validity, ..default }).unwrap_err(),
            "cache validity: expected more than zero; leave out the cache to keep nothing, found `0`"
        );
    }
    for (page_size, capacity) in [(512, 2048), (4096, 4 * PAGE), (1 << 21, 1 << 23), (512, 2049), (512, 10_000)] {
        let validity = Validity::For(Duration::MAX);
        let config = CacheConfig { capacity, page_size, validity };
        let (memory, cache) = cached(ScriptedMemory::new(flat(4)), config);
        assert_eq!(word(&cache, 0x3ff8).unwrap(), 0x3ff8);
        assert_eq!(word(&cache, 0x3ff0).unwrap(), 0x3ff0);
        assert_eq!(memory.call_count(), 1, "{config:?}");
    }
}

#[test]
fn over_a_direct_map_the_cache_is_idle() {
    let memory = frozen(4 * PAGE);
    let below = Arc::new(
        BufferMemory::new(
            SourceConfig { name: "mapped".into(), runs: RunMap::flat(8), facts: TargetFacts::default() },
            vec![1; 8],
        )
        .unwrap(),
    );
    let idle = CacheLayer::new(below, room_for(16)).unwrap();
    assert!(idle.is_idle() && idle.direct_map().is_some());
    assert_eq!(word(&idle, 0).unwrap(), 0x0101_0101_0101_0101);
    assert_eq!(write(&idle, 0, &[1]).unwrap_err().reason(), Some(Reason::ReadOnly));
    assert_eq!(idle.stats(), CacheStats::default());

    let (_, busy) = cached(memory, room_for(16));
    assert!(!busy.is_idle() && busy.direct_map().is_none());
    assert_eq!(busy.metadata().liveness, Liveness::Frozen);
    assert_eq!(busy.populated_runs().total_bytes(), 4 * PAGE);
    assert_eq!(*busy.facts(), TargetFacts::default());
}
