//! The page cache, beside the memory below it.
//!
//! Owns: tests of `cache`, and the odd memory that they share. Must not know: slots, locks.
//! Keeps: what the cache says is compared with what the same memory says without it, or said when it may be believed still.

mod ages;
mod calls;
mod control;
mod defects;
mod properties;
mod races;

use std::sync::Arc;

use super::*;
use crate::{
    address::PhysAddr,
    error::Reason,
    memory::{BufferMemory, Liveness, PhysicalMemoryExt, Run, SourceConfig},
    testkit::{Call, LockedMemory, ScriptedMemory},
};

/// A page in these tests.
const PAGE: u64 = 0x1000;

/// Where the last run of [`odd_runs`] starts: a page and a half before the end of the address space.
const TOP: u64 = u64::MAX - 0x17ff;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// Runs that end inside a page, share a page with and without a gap between them, and reach the last address.
fn odd_runs() -> RunMap {
    let run = |start, len, offset| Run { range: range(start, len), offset };
    RunMap::new([
        run(0x1000, 0x1800, 0),
        // After a gap in the same page.
        run(0x2a00, 0x280, 0x1800),
        // One page, two runs from places apart.
        run(0x3000, 0x400, 0x4000),
        run(0x3400, 0x1c00, 0x2000),
        run(0x8001, 0x2fff, 0x5000),
        run(TOP, 0x1800, 0x8000),
    ])
    .unwrap()
}

fn odd_bytes() -> Vec<u8> {
    (0..0x9800_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Writable memory with those runs.
fn odd_memory() -> LockedMemory {
    LockedMemory::new(odd_runs(), odd_bytes()).unwrap()
}

/// `pages` pages from address zero whose words hold their own address.
fn flat(pages: u64) -> LockedMemory {
    let bytes = (0..pages * PAGE / 8).flat_map(|word| (word * 8).to_le_bytes()).collect();
    LockedMemory::new(RunMap::flat(pages * PAGE), bytes).unwrap()
}

/// Frozen memory that must be called, all sevens.
fn frozen(len: u64) -> ScriptedMemory<BufferMemory> {
    let config = SourceConfig { name: "frozen".into(), runs: RunMap::flat(len), facts: TargetFacts::default() };
    ScriptedMemory::new(BufferMemory::new(config, vec![7; len as usize]).unwrap())
}

/// Room for `pages` pages of 4 KiB, valid until written to.
fn room_for(pages: u64) -> CacheConfig {
    CacheConfig { capacity: pages * PAGE, validity: Validity::Forever, ..CacheConfig::default() }
}

/// A cache over `memory`, and the memory to ask how often it was called.
fn cached<M: PhysicalMemory + 'static>(
    memory: ScriptedMemory<M>,
    config: CacheConfig,
) -> (Arc<ScriptedMemory<M>>, CacheLayer) {
    let memory = Arc::new(memory);
    (memory.clone(), CacheLayer::new(memory, config).unwrap())
}

fn word(memory: &dyn PhysicalMemory, addr: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    memory.read_into(PhysAddr::new(addr), &mut bytes).map(|()| u64::from_le_bytes(bytes))
}

fn write(memory: &dyn PhysicalMemory, addr: u64, bytes: &[u8]) -> Result<()> {
    memory.write_batch(&mut [PhysWrite::new(PhysAddr::new(addr), bytes)])
}

fn read(ops: usize, bytes: u64) -> Call {
    Call { write: false, ops, bytes }
}
