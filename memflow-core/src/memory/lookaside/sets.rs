//! A table of answers that many threads read and write without waiting for each other.
//!
//! Owns: slots in sets, and how one is read while another thread replaces it.
//! Must not know: what keys and answers mean, how old they may be.
//! Keeps: what is found was put in as it is, whole; a set holds a key once; no thread waits for longer than another takes to store
//! four words; nothing is allocated after the start.

use std::{
    hint,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};

/// Slots of a set: their first words fill two cache lines.
pub(super) const WAYS: usize = 16;
/// How often a set is tried that another thread is writing to; each try takes some nanoseconds, as does the writing.
const TRIES: usize = 256;

/// What a slot holds: a key in the first two words, then the answer. The first word is never zero.
pub(super) type Words = [u64; 4];

/// A key, and the bits of its second word that belong to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) mask: u64,
}

/// Sets of slots.
#[derive(Debug)]
pub(super) struct Sets {
    sets: Box<[Set]>,
}

/// Slots that share the keys which fall together, as a seqlock: every word is atomic, so that a reader that comes in between sees
/// old words, new ones, or some of both, and the version tells.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    /// Odd while a thread writes.
    version: AtomicU64,
    /// The slot that goes next when none is free.
    next: AtomicU64,
    /// Empty slots have zero here.
    first: [AtomicU64; WAYS],
    second: [AtomicU64; WAYS],
    third: [AtomicU64; WAYS],
    fourth: [AtomicU64; WAYS],
}

impl Sets {
    /// Room for at least so many slots; `None` when this machine does not have the memory.
    pub(super) fn new(slots: usize) -> Option<Self> {
        let count = slots.div_ceil(WAYS).max(1);
        let mut sets = Vec::new();
        sets.try_reserve_exact(count).ok()?;
        sets.resize_with(count, Set::default);
        Some(Self { sets: sets.into() })
    }

    /// The slot with this key. `None` also where a thread did not come to the end of its writing.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<Words> {
        let set = self.set_of(key);
        for _ in 0..TRIES {
            let version = set.version.load(Acquire);
            if version & 1 == 0 {
                let found = set.find(key).map(|way| set.words(way));
                // The words were read before the version is read again.
                fence(Acquire);
                if set.version.load(Relaxed) == version {
                    return found;
                }
            }
            hint::spin_loop();
        }
        None
    }

    /// Puts words in under their key, in the place of older ones with the same key. Else an empty slot is taken, else one that is
    /// `dead`, else the one that was filled longest ago. False where a thread did not come to the end of its writing.
    pub(super) fn put(&self, key: Key, words: Words, dead: impl Fn(&Words) -> bool) -> bool {
        self.change(key, |set| {
            let empty = || set.first.iter().position(|word| word.load(Relaxed) == 0);
            let useless = || (0..WAYS).find(|way| dead(&set.words(*way)));
            let way = set.find(key).or_else(empty).or_else(useless).unwrap_or_else(|| {
                let next = set.next.load(Relaxed);
                set.next.store(next.wrapping_add(1), Relaxed);
                next as usize % WAYS
            });
            set.store(way, words);
        })
    }

    /// Empties the slot with this key. False where a thread did not come to the end of its writing.
    pub(super) fn remove(&self, key: Key) -> bool {
        self.change(key, |set| {
            if let Some(way) = set.find(key) {
                set.store(way, [0; 4]);
            }
        })
    }

    /// Runs `write` while no other thread writes to the set of the key.
    fn change(&self, key: Key, write: impl FnOnce(&Set)) -> bool {
        let set = self.set_of(key);
        for _ in 0..TRIES {
            let version = set.version.load(Relaxed);
            let odd = version | 1;
            if version != odd && set.version.compare_exchange(version, odd, Acquire, Relaxed).is_ok() {
                // Whoever sees a new word sees the odd version too.
                fence(Release);
                write(set);
                set.version.store(version.wrapping_add(2), Release);
                return true;
            }
            hint::spin_loop();
        }
        false
    }

    #[inline]
    fn set_of(&self, key: Key) -> &Set {
        // Fibonacci hashing: neighbours and keys at any stride spread evenly. The high half of the product with the number of sets is
        // below that number, whatever it is.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let second = (key.second & key.mask).wrapping_mul(GOLDEN).rotate_left(32);
        let hash = (key.first ^ second).wrapping_mul(GOLDEN);
        let hash = (hash ^ hash >> 32).wrapping_mul(GOLDEN);
        let index = u128::from(hash).wrapping_mul(self.sets.len() as u128) >> 64;
        #[expect(clippy::indexing_slicing, reason = "below the number of sets, see above; there is at least one")]
        &self.sets[index as usize]
    }
}

impl Set {
    #[inline]
    fn find(&self, key: Key) -> Option<usize> {
        let same = |(first, second): (&AtomicU64, &AtomicU64)| {
            first.load(Relaxed) == key.first && (second.load(Relaxed) ^ key.second) & key.mask == 0
        };
        self.first.iter().zip(&self.second).position(same)
    }

    #[inline]
    fn words(&self, way: usize) -> Words {
        [&self.first, &self.second, &self.third, &self.fourth]
            .map(|words| words.get(way).map_or(0, |word| word.load(Relaxed)))
    }

    fn store(&self, way: usize, words: Words) {
        for (place, word) in [&self.first, &self.second, &self.third, &self.fourth].into_iter().zip(words) {
            if let Some(place) = place.get(way) {
                place.store(word, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize},
        thread,
    };

    use super::*;

    fn key(first: u64) -> Key {
        Key { first, second: 0x10_0000, mask: !0xffff }
    }

    fn words(first: u64, answer: u64) -> Words {
        [first, 0x10_0000 | (first & 0xffff), answer, !answer]
    }

    #[test]
    fn what_was_put_in_last_is_found() {
        let sets = Sets::new(1024).unwrap();
        for answer in [7, 8] {
            for first in 1..=512 {
                assert!(sets.put(key(first), words(first, answer + first), |_| false));
            }
        }
        for first in 1..=512 {
            assert_eq!(sets.find(key(first)), Some(words(first, 8 + first)));
            assert_eq!(sets.find(Key { second: 0x20_0000, ..key(first) }), None, "all of the key counts");
        }
        assert!(sets.remove(key(5)) && sets.remove(key(1000)));
        assert_eq!((sets.find(key(5)), sets.find(key(6)).is_some()), (None, true));
    }

    #[test]
    fn full_set_gives_up_what_is_dead_then_what_is_oldest() {
        let sets = Sets::new(1).unwrap();
        for first in 1..=WAYS as u64 {
            sets.put(key(first), words(first, first), |_| false);
        }
        sets.put(key(100), words(100, 0), |held| held[2] == 9);
        assert_eq!((sets.find(key(9)), sets.find(key(1)).is_some()), (None, true));
        sets.put(key(101), words(101, 0), |_| false);
        assert_eq!((sets.find(key(1)), sets.find(key(2)).is_some()), (None, true));
        let held = (1..200).filter(|first| sets.find(key(*first)).is_some()).count();
        assert_eq!(held, WAYS);
    }

    #[test]
    fn readers_never_see_half_of_a_write() {
        // One set, so that all threads meet.
        let sets = Sets::new(1).unwrap();
        let (stop, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut first = 0;
                    while !stop.load(Relaxed) {
                        first = first % 20 + 1;
                        if let Some(found) = sets.find(key(first)) {
                            assert_eq!(found, words(first, found[2]));
                            assert_eq!(found[2] % 20, first % 20);
                            seen.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let writers = [0, 1].map(|_| {
                scope.spawn(|| {
                    for round in 0..20_000_u64 {
                        let first = round % 20 + 1;
                        sets.put(key(first), words(first, round * 20 + first), |_| false);
                        if round % 7 == 0 {
                            sets.remove(key(first));
                        }
                        if round % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            });
            for writer in writers {
                writer.join().unwrap();
            }
            stop.store(true, Relaxed);
        });
        assert!(seen.load(Relaxed) > 0);
    }
}
