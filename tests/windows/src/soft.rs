//! Page table entries that are not present: what Windows writes into them.
//!
//! Owns: their bits, for each paging mode and build. Must not know: which page an entry is for.
//! Keeps: no entry that it makes has the bit for present.
//! Source: the structures `_MMPTE_*` in public symbols.

use crate::{
    offsets::Offsets,
    physical::PAGE,
    tables::{FRAME, Paging},
};

const PROTOTYPE: u64 = 1 << 10;
const TRANSITION: u64 = 1 << 11;
/// The bits that the mask inverted are as they are.
const NOT_SWIZZLED: u64 = 1 << 4;
/// The bit that is inverted against speculative loads: the highest address bit of usual processors.
pub(crate) const INVALID_MASK: u64 = 1 << 45;

/// How entries are written on one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Soft {
    paging: Paging,
    /// Where the number of the page file begins.
    file_at: u32,
    /// Protection in entries that name a prototype.
    protection_at: u32,
    /// 0 without.
    pub(crate) mask: u64,
}

impl Soft {
    pub(crate) fn new(paging: Paging, offsets: &Offsets, mask: bool) -> Self {
        let new = offsets.version.build >= 17134;
        Self {
            paging,
            file_at: if new { 12 } else { 1 },
            protection_at: if offsets.ten() { 5 } else { 11 },
            mask: if mask && new && paging == Paging::Four { INVALID_MASK } else { 0 },
        }
    }

    /// Inverts the masked bit, or says that it was not; both are seen in one machine.
    fn swizzled(self, entry: u64, odd: bool) -> u64 {
        match (self.mask, odd) {
            (0, _) => entry,
            (_, true) => entry | NOT_SWIZZLED,
            (mask, false) => entry ^ mask,
        }
    }

    /// In RAM, in transition.
    pub(crate) fn transition(self, frame: u64, protection: u8) -> u64 {
        self.swizzled(((frame * PAGE) & FRAME) | TRANSITION | bits(protection), frame % 2 == 1)
    }

    /// Committed, zeros.
    pub(crate) fn demand_zero(self, protection: u8) -> u64 {
        bits(protection)
    }

    /// In a page file.
    pub(crate) fn page_file(self, file: u8, page: u32, protection: u8) -> u64 {
        let number = u64::from(file) << self.file_at;
        let offset = u64::from(page) << if self.paging == Paging::Two { 12 } else { 32 };
        self.swizzled(offset | number | bits(protection), page % 2 == 1)
    }

    /// Another entry, at an address of the kernel, knows.
    pub(crate) fn prototype(self, address: u64, protection: u8) -> Option<u64> {
        let protection = u64::from(protection) << self.protection_at;
        match self.paging {
            Paging::Four => Some((address << 16) | PROTOTYPE | protection),
            Paging::Pae => Some((address << 32) | PROTOTYPE | protection),
            // How 32 bits hold an address is not known well enough to claim it.
            Paging::Two => None,
        }
    }

    /// The VAD knows.
    pub(crate) fn by_vad(self, protection: u8) -> u64 {
        let high = if self.paging == Paging::Two { 0xffff_f000 } else { 0xffff_ffff_0000_0000 };
        high | PROTOTYPE | bits(protection)
    }

    /// In the mapped file only: what a prototype entry says.
    pub(crate) fn in_file(self, subsection: u64, protection: u8) -> u64 {
        let address = match self.paging {
            Paging::Four => subsection << 16,
            Paging::Pae => subsection << 32,
            Paging::Two => subsection & 0xffff_f800,
        };
        address | PROTOTYPE | bits(protection)
    }
}

fn bits(protection: u8) -> u64 {
    u64::from(protection & 0x1f) << 5
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{narrow, offsets::OffsetTable};

    #[test]
    fn entries_have_the_bits_that_public_descriptions_give() {
        let table = OffsetTable::embedded().unwrap();
        let old = Soft::new(Paging::Four, table.build("6.1.7601").unwrap(), true);
        let new = Soft::new(Paging::Four, table.build("10.0.19041").unwrap(), true);
        assert_eq!(old.mask, 0, "builds before 17134 invert nothing");
        assert_eq!(old.transition(0x1235, 4), 0x1235880);
        assert_eq!(new.transition(0x1235, 4), 0x1235890);
        assert_eq!(new.transition(0x1234, 4), 0x2000_0123_4880);
        assert_eq!(old.page_file(1, 0x42, 4), 0x42_0000_0082);
        assert_eq!(new.page_file(2, 0x43, 4), 0x43_0000_2090);
        assert_eq!(new.prototype(0xffff_c000_1234_5678, 0), Some(0xc000_1234_5678_0400));
        assert_eq!(new.by_vad(4), 0xffff_ffff_0000_0480);
        let narrow = Soft::new(Paging::Two, &narrow::windows_7_x86(), false);
        assert_eq!(narrow.by_vad(1), 0xffff_f420);
        assert_eq!(narrow.page_file(0, 0x77, 4), 0x77080);
    }
}
