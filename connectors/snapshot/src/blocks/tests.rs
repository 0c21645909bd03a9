//! Blocks that count how often they are unpacked, and fail on demand.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests"
)]

use std::sync::{
    Barrier,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::*;

const BLOCK: usize = 1000;

/// Byte `n` is `n % 251`; the last block is half as long.
#[derive(Debug)]
struct Counted {
    blocks: u64,
    unpacked: AtomicUsize,
    broken: AtomicBool,
}

impl Blocks for Counted {
    fn size(&self) -> u64 {
        self.blocks * BLOCK as u64 - 500
    }

    fn find(&self, offset: u64) -> io::Result<Block> {
        let id = offset / BLOCK as u64;
        let len = if id + 1 == self.blocks { 500 } else { BLOCK };
        Ok(Block { id, start: id * BLOCK as u64, len })
    }

    fn unpack(&self, block: &Block, bytes: &mut [u8]) -> io::Result<()> {
        self.unpacked.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) {
            return Err(damaged("broken on demand"));
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = ((block.start + index as u64) % 251) as u8;
        }
        Ok(())
    }
}

fn input(blocks: u64, cache: u64) -> BlockInput<Counted> {
    let blocks = Counted { blocks, unpacked: AtomicUsize::new(0), broken: AtomicBool::new(false) };
    BlockInput::new("test".as_ref(), blocks, cache)
}

fn read_all(input: &BlockInput<Counted>, from: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match input.read(from + done as u64, &mut bytes[done..]).unwrap() {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    bytes
}

#[test]
fn reads_across_blocks_see_the_unpacked_bytes_and_end_at_the_end() {
    let input = input(10, 1 << 20);
    let expected: Vec<u8> = (0..9500u64).map(|at| (at % 251) as u8).collect();
    assert_eq!(read_all(&input, 0, 20_000), expected);
    assert_eq!(read_all(&input, 999, 3), expected[999..1002]);
    assert_eq!(read_all(&input, 9_499, 3), expected[9_499..]);
    for past in [9_500, u64::MAX] {
        assert!(read_all(&input, past, 3).is_empty());
    }
    assert_eq!(input.blocks.unpacked.load(Ordering::SeqCst), 10);
}

#[test]
fn damaged_block_fails_its_own_reads_and_is_tried_again() {
    let input = input(10, 1 << 20);
    read_all(&input, 0, 1000);
    input.blocks.broken.store(true, Ordering::SeqCst);
    assert_eq!(input.read(1000, &mut [0]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert_eq!(input.read(0, &mut [0]).unwrap(), 1);
    input.blocks.broken.store(false, Ordering::SeqCst);
    assert_eq!(input.read(1000, &mut [0]).unwrap(), 1);
}

#[test]
fn what_is_held_stays_within_the_cache() {
    let input = input(10_000, 100 * BLOCK as u64);
    read_all(&input, 0, 10_000 * BLOCK);
    assert!(input.cache_weight() <= 100 * BLOCK as u64, "{input:?}");
}

#[test]
fn block_is_unpacked_once_however_many_threads_want_it() {
    let input = input(1000, 10 << 20);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                read_all(&input, 0, 1000 * BLOCK);
            });
        }
    });
    assert_eq!(input.blocks.unpacked.load(Ordering::SeqCst), 1000);
}

impl BlockInput<Counted> {
    fn cache_weight(&self) -> u64 {
        self.cache.weight()
    }
}
