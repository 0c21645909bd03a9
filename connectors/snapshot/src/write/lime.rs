//! LiME images, version 1: each stretch of memory behind a header with its addresses.
//!
//! Owns: the header. Must not know: files, compression.
//! Source: LiME, `doc/README.md` and `lime.h` (`lime_mem_range_header`): magic, version, first and last address, eight reserved bytes.

use memflow_core::PhysRange;

use super::{source::Source, stream::Item};
use crate::lime::{MAGIC, VERSION};

/// The parts of the file.
pub(super) fn items(source: &Source<'_>) -> Vec<Item> {
    let parts = |(range, items): (PhysRange, Vec<Item>)| std::iter::once(Item::Bytes(header(range))).chain(items);
    source.stretches().into_iter().map(|stretch| (stretch.range, stretch.items)).flat_map(parts).collect()
}

/// The header of a stretch.
fn header(range: PhysRange) -> Vec<u8> {
    let last = range.last().unwrap_or(range.start());
    let mut header = Vec::with_capacity(32);
    header.extend(MAGIC.to_le_bytes());
    header.extend(VERSION.to_le_bytes());
    header.extend(range.start().as_u64().to_le_bytes());
    header.extend(last.as_u64().to_le_bytes());
    header.extend([0; 8]);
    header
}

#[cfg(test)]
mod tests {
    use memflow_core::PhysAddr;

    use super::*;

    /// The fields as LiME's own writer puts them: magic, version, first and last address, reserved.
    #[test]
    fn header_holds_first_and_last_address() {
        let header = header(PhysRange::new(PhysAddr::new(0x1000), 0x9ec00).unwrap());
        assert_eq!(header[..8], *b"EMiL\x01\0\0\0");
        assert_eq!(header[8..16], 0x1000u64.to_le_bytes());
        assert_eq!(header[16..24], 0x9fbffu64.to_le_bytes());
        assert_eq!(header[24..], [0; 8]);
    }
}
