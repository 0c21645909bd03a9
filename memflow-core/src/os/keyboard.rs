//! The keyboard of a system.
//!
//! Owns: which keys are down, by number. Must not know: where a system keeps that.
//! Source: virtual-key codes of the Windows SDK (`winuser.h`), which are the numbers of keys here.

use std::fmt;

use crate::error::Result;

/// Bytes of a state: two bits for each of 256 keys.
const BYTES: usize = 64;

/// The keyboard of whoever sits at the machine.
pub trait Keyboard: Send + Sync {
    /// Which keys are down now.
    ///
    /// # Errors
    /// When what the system keeps of its keyboard cannot be found or read.
    fn state(&self) -> Result<KeyboardState>;

    /// Makes the system believe that a key is down, or is not. The key itself changes nothing of that until it is next touched.
    ///
    /// # Errors
    /// As [`state`](Self::state), and when memory cannot be written to.
    fn set_down(&self, key: u8, down: bool) -> Result<()>;
}

/// Which keys are down, and which are switched on, by virtual-key code: 0x41 is A, 0x14 the caps lock.
///
/// ```
/// use memflow_core::os::KeyboardState;
///
/// let mut bits = [0; 64];
/// bits[0x41 * 2 / 8] = 0b0100;
/// let state = KeyboardState::from_bits(bits);
/// assert!(state.is_down(0x41) && !state.is_down(0x42));
/// assert_eq!(state.down().collect::<Vec<u8>>(), [0x41]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyboardState {
    bits: [u8; BYTES],
}

impl KeyboardState {
    /// A state of two bits for each key, the lower keys in the lower bits: down, switched on.
    pub const fn from_bits(bits: [u8; BYTES]) -> Self {
        Self { bits }
    }

    /// Where the bit of a key that is down lies: byte and mask.
    pub const fn place(key: u8) -> (usize, u8) {
        (key as usize / 4, 1 << (key % 4 * 2))
    }

    fn bit(&self, key: u8, shift: u32) -> bool {
        let (byte, mask) = Self::place(key);
        self.bits.get(byte).is_some_and(|bits| bits & (mask << shift) != 0)
    }

    /// Whether a key is down.
    pub fn is_down(&self, key: u8) -> bool {
        self.bit(key, 0)
    }

    /// Whether a key is switched on: it has been pressed an odd number of times.
    pub fn is_toggled(&self, key: u8) -> bool {
        self.bit(key, 1)
    }

    /// The keys that are down.
    pub fn down(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|key| self.is_down(*key))
    }

    /// The keys that are switched on.
    pub fn toggled(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|key| self.is_toggled(*key))
    }
}

/// Says nothing of the keys: what somebody types is nobody's business.
impl fmt::Debug for KeyboardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyboardState").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_own_two_bits() {
        for key in 0..=u8::MAX {
            let (byte, mask) = KeyboardState::place(key);
            let mut bits = [0; BYTES];
            bits[byte] = mask;
            let state = KeyboardState::from_bits(bits);
            assert!(state.down().eq([key]) && state.toggled().next().is_none());
            bits[byte] = mask << 1;
            assert!(KeyboardState::from_bits(bits).toggled().eq([key]));
        }
    }
}
