//! Numbers that may be unknown: a bit for each tells.
//!
//! Must not know: what the numbers mean.

/// Hands out numbers of the other side, by their bits.
pub(super) struct Known(pub(super) u64);

impl Known {
    pub(super) fn get(&self, bit: u64, value: u64) -> Option<u64> {
        (self.0 & bit != 0).then_some(value)
    }
}

/// Collects which numbers of ours are known.
#[derive(Default)]
pub(super) struct Knowing(pub(super) u64);

impl Knowing {
    pub(super) fn put(&mut self, number: Option<u64>, bit: u64) -> u64 {
        self.0 |= if number.is_some() { bit } else { 0 };
        number.unwrap_or(0)
    }
}
