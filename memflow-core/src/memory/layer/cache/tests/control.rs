//! Targets that are paused through the cache.
//!
//! Must not know: slots, locks.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::memory::{Pause, RunState, VcpuRegisters};

/// A machine that writes to its memory whenever it is stopped or let run, without anybody's knowledge.
struct Machine {
    memory: LockedMemory,
    running: AtomicBool,
}

impl Machine {
    fn turn(&self, running: bool) -> Result<()> {
        self.running.store(running, Ordering::SeqCst);
        write(&self.memory, 0x10, &u64::from(running).to_le_bytes())
    }
}

impl Control for Machine {
    fn run_state(&self) -> Result<RunState> {
        Ok(if self.running.load(Ordering::SeqCst) { RunState::Running } else { RunState::Paused })
    }

    fn pause(&self) -> Result<()> {
        self.turn(false)
    }

    fn resume(&self) -> Result<()> {
        self.turn(true)
    }

    fn registers(&self) -> Result<Vec<VcpuRegisters>> {
        Ok(Vec::new())
    }
}

impl PhysicalMemory for Machine {
    fn read_batch(&self, ops: &mut [PhysRead<'_>]) -> Result<()> {
        self.memory.read_batch(ops)
    }

    fn write_batch(&self, ops: &mut [PhysWrite<'_>]) -> Result<()> {
        self.memory.write_batch(ops)
    }

    fn metadata(&self) -> Metadata {
        self.memory.metadata()
    }

    fn facts(&self) -> &TargetFacts {
        self.memory.facts()
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }
}

#[test]
fn what_was_read_before_a_pause_is_not_served_in_it() {
    let machine = Arc::new(Machine { memory: flat(4), running: AtomicBool::new(true) });
    let config = CacheConfig { validity: Validity::Forever, ..CacheConfig::default() };
    let cache = Arc::new(CacheLayer::new(machine.clone(), config).unwrap());
    assert_eq!(word(&*cache, 0x10).unwrap(), 0x10);
    let pause = Pause::new(cache.clone()).unwrap();
    assert_eq!(word(&*cache, 0x10).unwrap(), 0, "as it was when the machine stopped");
    // What is read while it stands is kept: nothing changes it.
    write(&machine.memory, 0x10, &[7; 8]).unwrap();
    assert_eq!(word(&*cache, 0x10).unwrap(), 0);
    pause.end().unwrap();
    assert_eq!(machine.run_state().unwrap(), RunState::Running);
    // Somebody else stops it.
    machine.pause().unwrap();
    write(&machine.memory, 0x10, &[1; 8]).unwrap();
    let _pause = Pause::new(cache.clone()).unwrap();
    assert_eq!(word(&*cache, 0x10).unwrap(), 0x0101_0101_0101_0101);
}

#[test]
fn memory_without_control_has_none_through_the_cache() {
    let cache = CacheLayer::new(Arc::new(flat(4)), CacheConfig::default()).unwrap();
    assert!(cache.control().is_none());
}
