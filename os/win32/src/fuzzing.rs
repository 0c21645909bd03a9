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

use crate::{
    kdbg::Kdbg,
    modules,
    pe::{CodeView, Exports, Image},
    symbols::Pdb,
};

/// Where the bytes lie.
const BASE: u64 = 0x1000_0000;

/// Memory that holds `data` from [`BASE`] on, and nothing else.
fn memory(data: &[u8]) -> Option<PhysicalView> {
    let range = PhysRange::new(PhysAddr::new(BASE), data.len() as u64).filter(|range| !range.is_empty())?;
    let runs = RunMap::new([Run { range, offset: 0 }]).ok()?;
    let config = SourceConfig { name: "an input".into(), runs, facts: TargetFacts::default() };
    Some(PhysicalView::new(Arc::new(BufferMemory::new(config, data.to_vec()).ok()?)))
}

/// Takes `data` for an image in memory and asks for all that is ever asked of one. Returns how much of it was there.
pub fn pe(data: &[u8]) -> usize {
    let Some(view) = memory(data) else { return 0 };
    let base = VirtAddr::new(BASE);
    let Ok(image) = Image::read(&view, base) else { return 0 };
    assert!(image.sections.iter().all(|section| section.offset < image.size));
    let mut found = image.sections.len();
    if let Some(codeview) = CodeView::read(&view, &image) {
        assert_eq!(codeview.guid.len(), 32);
        found += 1;
    }
    if let Ok(exports) = Exports::read(&view, &image) {
        for export in &exports.named {
            assert!(image.contains(export.address));
        }
        found += exports.named.len();
    }
    if let Some(kdbg) = Kdbg::search(&view, &image) {
        assert!(kdbg.at.as_u64() >= BASE);
        found += kdbg.layout().len();
    }
    found + usize::from(modules::find_head(&view, &image).is_some())
}

/// Takes `data` for a block for debuggers of a kernel, with pointers of both widths. Returns how many offsets it names.
pub fn kdbg(data: &[u8]) -> usize {
    let mut found = 0;
    for (base, pointer_size) in [(0xffff_f805_1a09_f000, 8), (0x8281_0000, 4)] {
        let (at, base) = (VirtAddr::new(base + 0x1000), VirtAddr::new(base));
        if let Some(kdbg) = Kdbg::parse(at, data.to_vec(), base, pointer_size) {
            let pointers = [kdbg.loaded_modules(), kdbg.active_processes(), kdbg.processors(), kdbg.build_lab()];
            assert!(pointers.iter().flatten().all(|pointer| !pointer.is_null()));
            found += kdbg.layout().len();
        }
    }
    found
}

/// Takes `data` for a file of symbols. Returns how many numbers are taken of it.
pub fn pdb(data: &[u8]) -> usize {
    match Pdb::parse(data) {
        Ok(pdb) => {
            assert_eq!(pdb.guid.len(), 32);
            pdb.numbers.len()
        }
        Err(problem) => {
            assert!(problem.starts_with("no file of symbols"));
            0
        }
    }
}
