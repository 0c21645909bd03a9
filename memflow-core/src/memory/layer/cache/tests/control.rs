//! Targets that are paused through the cache.
//!
//! Must not know: slots, locks.

use super::*;
use crate::{
    memory::{Pause, RunState},
    testkit::SwitchedMemory,
};

/// A machine that writes to its memory whenever it is stopped or let run, without anybody's knowledge.
fn machine() -> Arc<SwitchedMemory<LockedMemory>> {
    let on_switch = |memory: &LockedMemory, running| write(memory, 0x10, &u64::from(running).to_le_bytes());
    Arc::new(SwitchedMemory::new(flat(4), true).on_switch(on_switch))
}

#[test]
fn what_was_read_before_a_pause_is_not_served_in_it() {
    let machine = machine();
    let config = CacheConfig { validity: Validity::Forever, ..CacheConfig::default() };
    let cache = Arc::new(CacheLayer::new(machine.clone(), config).unwrap());
    assert_eq!(word(&*cache, 0x10).unwrap(), 0x10);
    let pause = Pause::new(cache.clone()).unwrap();
    assert_eq!(word(&*cache, 0x10).unwrap(), 0, "as it was when the machine stopped");
    // What is read while it stands is kept: nothing changes it.
    write(machine.memory(), 0x10, &[7; 8]).unwrap();
    assert_eq!(word(&*cache, 0x10).unwrap(), 0);
    pause.end().unwrap();
    assert_eq!(machine.run_state().unwrap(), RunState::Running);
    // Somebody else stops it.
    machine.pause().unwrap();
    write(machine.memory(), 0x10, &[1; 8]).unwrap();
    let _pause = Pause::new(cache.clone()).unwrap();
    assert_eq!(word(&*cache, 0x10).unwrap(), 0x0101_0101_0101_0101);
}

#[test]
fn memory_without_control_has_none_through_the_cache() {
    let cache = CacheLayer::new(Arc::new(flat(4)), CacheConfig::default()).unwrap();
    assert!(cache.control().is_none());
}
