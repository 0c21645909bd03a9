//! What the real-guest tests share: opening a guest's memory in each of its forms, an independent page walker, and memory
//! with bytes put in its place.
//!
//! Must not be used by anything but tests. The walker is written from the Intel SDM and shares no code with `memflow-core`.

mod built;
mod guest;
mod leechcore;
mod patched;
mod python;
mod walker;

pub use self::{
    built::{Built, built},
    guest::{Form, Opened, guest},
    leechcore::leechcore,
    patched::Patched,
    python::readers,
    walker::{Mode, Walked, Walker},
};

/// Deterministic pseudo-random numbers (SplitMix64, from its published constants), so that a failure can be repeated.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}
