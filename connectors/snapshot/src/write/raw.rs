//! Raw images: physical address zero is byte zero of the file.
//!
//! Owns: what stands where there is no memory. Must not know: files, compression.

use memflow_core::{Error, PhysAddr, PhysRange, Result};

use super::{Gaps, source::Source, stream::Item};

/// The parts of the file.
///
/// # Errors
/// [`Error::Unsupported`] for memory with gaps, unless zeros are wanted there: the format has no way to tell them.
pub(super) fn items(source: &Source<'_>) -> Result<Vec<Item>> {
    let stretches = source.stretches();
    let mut items = Vec::new();
    let mut at = Some(PhysAddr::new(0));
    for stretch in stretches {
        let gap = at.and_then(|at| PhysRange::between(at, stretch.range.start())).filter(|gap| !gap.is_empty());
        if let Some(gap) = gap {
            if source.gaps != Some(Gaps::Zero) {
                return Err(Error::Unsupported {
                    what: format!("a raw image of memory with a gap at {} ({:#x} bytes)", gap.start(), gap.len()),
                    why: "the format cannot tell gaps; ask for zeros there, or take a format that has them, such as LiME or ELF"
                        .to_owned(),
                });
            }
            source.count_filled(gap.len());
            items.push(Item::Zeros(gap.len()));
        }
        items.extend(stretch.items);
        at = stretch.range.end();
    }
    Ok(items)
}
