//! Entries for fuzz targets into parsers that are not public. With the feature `fuzzing`; no promise of stability.
//!
//! Owns: the way from plain bytes to a parser's arguments, and what must be true of what comes out.
//! Must not know: how inputs are made.

use std::sync::Arc;

use memflow_core::{
    PhysAddr, PhysRange, VirtAddr,
    memory::{BufferMemory, Run, RunMap, SourceConfig, TargetFacts},
    view::PhysicalView,
};

pub use crate::log::fuzzing::{log_flat, log_ring};
use crate::{
    layout_cache::Entry,
    symbols::{Addresses, Known, LANDMARK, SymbolTable},
    vmcoreinfo::VmcoreInfo,
};

/// The address that the image of a kernel has in [`kallsyms`].
const IMAGE: u64 = 0xffff_ffff_9a00_0000;
/// Symbols and landmarks looked at.
const SAMPLES: usize = 8;

/// Parses a VMCOREINFO text and asks for everything that is ever asked for. Returns how much of it was there.
pub fn vmcoreinfo(data: &[u8]) -> usize {
    let info = VmcoreInfo::parse(data);
    let texts: Vec<&str> = [info.release(), info.build_id()].into_iter().flatten().collect();
    assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= data.len());
    let symbols = ["_stext", "init_uts_ns", "swapper_pg_dir"].into_iter().filter_map(|name| info.symbol(name));
    let numbers = ["phys_base", "pgtable_l5_enabled"].into_iter().filter_map(|name| info.number(name));
    texts.len().saturating_add(symbols.count()).saturating_add(numbers.count())
}

/// Reads an entry of the layout cache, without its hash and version. Returns how many answers it holds.
pub fn layout_entry(data: &[u8]) -> usize {
    let Ok(entry) = Entry::parse_body(data) else { return 0 };
    assert!(entry.symbols.values().flatten().all(|offset| *offset < entry.image_len));
    let again = entry.to_body().expect("what was read can be written");
    assert_eq!(Entry::parse_body(&again).as_ref(), Ok(&entry));
    entry.symbols.len() + entry.types.len()
}

/// Takes `data` for the image of a kernel, whose first bytes may be a VMCOREINFO text, and reads its symbol table in every
/// way. Returns in how many ways it was found.
pub fn kallsyms(data: &[u8]) -> usize {
    let Some(view) = image(data) else { return 0 };
    let mut found = Vec::new();
    let known = Known::default();
    if let Some(symbols) = SymbolTable::from_note(&view, &VmcoreInfo::parse(data), &known) {
        found.extend(symbols);
    }
    for offset in memchr::memmem::find_iter(data, LANDMARK).take(SAMPLES) {
        let digits = VirtAddr::new(IMAGE).wrapping_add(offset as u64);
        for addresses in [Addresses::Virtual, Addresses::Physical] {
            if let Some(symbols) = SymbolTable::from_landmark(&view, digits, VirtAddr::new(IMAGE), &known, addresses) {
                found.extend(symbols);
            }
        }
    }
    found.iter().for_each(ask);
    found.len()
}

/// The bytes as memory from [`IMAGE`] on.
fn image(data: &[u8]) -> Option<PhysicalView> {
    let range = PhysRange::new(PhysAddr::new(IMAGE), data.len() as u64)?;
    let runs = RunMap::new([Run { range, offset: 0 }]).ok()?;
    let config = SourceConfig { name: "image".into(), runs, facts: TargetFacts::default() };
    Some(PhysicalView::new(Arc::new(BufferMemory::new(config, data.to_vec()).ok()?)))
}

/// Every name that is listed is found again, and so is every address in the image.
fn ask(symbols: &SymbolTable) {
    assert!(!symbols.is_empty());
    let step = symbols.len().div_ceil(SAMPLES);
    for symbol in symbols.iter().step_by(step) {
        // Names that are not text are shown with replacement characters, which no table has.
        let named = symbols.named(&symbol.name);
        assert!(named.contains(&symbol) || symbol.name.contains('\u{fffd}'), "{symbol:?} is not in {named:?}");
        if let Some((at, distance)) = symbols.at(symbol.address) {
            assert_eq!((at.address, distance), (symbol.address, 0));
        }
    }
}
