//! Members of a process, from System's bytes and those of other processes.
//!
//! Owns: the order in which members are found, as each helps to find the next. Must not know: regions, threads.
//! Keeps: a place counts when it is the only one that fits all processes that were looked at.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{MemoryView, PageSize, VirtAddr, paging::AddressSpace, view::SpaceView};

use super::{image, modules, objects, regions, system, threads, times};
use crate::{kernel::Kernel, list, offsets::Layout, reader::Reader, structure::Structure};

/// Bytes of a process that are looked at; the largest has 0xbc0.
pub(super) const LEN: u64 = 0xc00;
/// Processes that are looked at.
const MAX_LOOKED_AT: usize = 16;
/// More processes than any system has.
const MAX_PROCESSES: u64 = 1 << 16;
/// Where the evidence comes from.
pub(super) const FROM: &str = "the bytes of System and other processes";
/// Bytes of a process' name.
const NAME: u64 = 15;
/// Number of System.
const SYSTEM: u64 = 4;

/// A process whose bytes were read.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) bytes: Structure,
    pub(super) name: String,
    /// Its memory, once its page tables are known.
    pub(super) view: Option<SpaceView>,
    /// Its block, once that is known and if it has one.
    pub(super) peb: Option<VirtAddr>,
    /// Where its main image lies, by its block.
    pub(super) image: Option<VirtAddr>,
}

impl Sample {
    /// A reader of its own memory, and its block there.
    pub(super) fn own(&self) -> Option<(Reader<'_>, VirtAddr)> {
        Some((Reader::new(self.view.as_ref()?), self.peb?))
    }
}

/// Offsets at which a pointer can lie.
pub(super) fn places(reader: &Reader<'_>, from: u64) -> impl Iterator<Item = u64> + use<> {
    let size = reader.pointer_size();
    (from..LEN.saturating_sub(32)).step_by(usize::try_from(size).unwrap_or(8))
}

/// The only place that fits; `None` when there is none, or several.
pub(super) fn only(mut places: impl Iterator<Item = u64>) -> Option<u64> {
    let first = places.next()?;
    places.next().is_none().then_some(first)
}

/// Adds what the processes in memory tell.
pub(crate) fn derive(kernel: &Kernel, layout: &mut Layout) {
    if find(kernel, layout).is_none() {
        log::debug!("offsets: System's bytes tell no more");
    }
}

fn find(kernel: &Kernel, layout: &mut Layout) -> Option<()> {
    let reader = Reader::new(&kernel.view);
    let bytes = system::find(kernel)?;
    let system = bytes.at();
    let name = layout.find("_EPROCESS.ImageFileName").or_else(|| {
        let fits = |offset: &u64| bytes.slice(*offset, 7).is_ok_and(|text| text == b"System\0");
        only((0..LEN).step_by(4).filter(fits))
    })?;
    layout.add("_EPROCESS.ImageFileName", name, FROM);
    let pid = number_and_links(kernel, &bytes, name)?;
    let links = pid.saturating_add(reader.pointer_size());
    layout.add("_EPROCESS.UniqueProcessId", pid, FROM);
    layout.add("_EPROCESS.ActiveProcessLinks", links, FROM);
    let root = match layout.find("_KPROCESS.DirectoryTableBase") {
        Some(root) => root,
        None => only(places(&reader, 0x10).take(16).filter(|offset| is_root(kernel, &bytes, *offset)))?,
    };
    layout.add("_KPROCESS.DirectoryTableBase", root, FROM);
    let mut samples = samples(kernel, system, links, name);
    for sample in &mut samples {
        sample.view = sample.bytes.word(root).ok().map(|root| {
            let space = kernel.space_of_root(root);
            SpaceView::new(kernel.memory.clone(), space)
        });
    }
    if let Some(peb) = layout.find("_EPROCESS.Peb").or_else(|| find_peb(&reader, &bytes, &samples)) {
        layout.add("_EPROCESS.Peb", peb, FROM);
        for sample in &mut samples {
            sample.peb = sample.bytes.pointer(peb).ok().filter(|at| reader.is_user(*at));
            let view = sample.view.as_ref();
            let own = view.zip(sample.peb).and_then(|(view, peb)| {
                let reader = Reader::new(view);
                reader.pointer(peb, reader.either(0x10, 0x8)).ok()
            });
            sample.image = own.filter(|image| image.is_page_aligned(PageSize::KIB_4) && !image.is_null());
        }
    }
    parent(&reader, layout, &bytes, &samples);
    image::members(kernel, layout, &bytes, &samples);
    objects::members(kernel, layout, &bytes, &samples);
    times::members(kernel, layout, &bytes, &samples);
    threads::members(kernel, layout, &bytes, &samples);
    regions::members(kernel, layout, &samples);
    modules::members(kernel, layout);
    Some(())
}

/// Place of the number: 4, then links that lead to another process and back.
fn number_and_links(kernel: &Kernel, bytes: &Structure, name: u64) -> Option<u64> {
    let reader = Reader::new(&kernel.view);
    let size = reader.pointer_size();
    let fits = |offset: &u64| {
        let links = offset.saturating_add(size);
        let own = bytes.at().wrapping_add(links);
        let (Ok(pid), Ok(next), Ok(previous)) =
            (bytes.word(*offset), bytes.pointer(links), bytes.pointer(links.saturating_add(size)))
        else {
            return false;
        };
        if pid != SYSTEM || !reader.is_kernel(next) || !reader.is_kernel(previous) {
            return false;
        }
        if !reader.links(next).is_ok_and(|(_, back)| back == own) {
            return false;
        }
        let other = next.wrapping_sub(links);
        let Ok(other) = Structure::read(&kernel.view, other, LEN) else { return false };
        other.word(*offset).is_ok_and(|pid| pid % 4 == 0) && other.text(name, NAME).is_ok()
    };
    only(places(&reader, 0x40).filter(fits))
}

/// Whether the word at a place leads to page tables that map the kernel.
fn is_root(kernel: &Kernel, bytes: &Structure, offset: u64) -> bool {
    let Ok(root) = bytes.word(offset) else { return false };
    let place = |space: &AddressSpace| space.translate(&*kernel.memory, kernel.info.base).ok().map(|found| found.phys);
    root >> 12 != 0
        && root >> 52 == 0
        && place(&kernel.space_of_root(root)).is_some_and(|own| Some(own) == place(kernel.view.space()))
}

/// The processes that follow System in the list, as far as they can be read.
fn samples(kernel: &Kernel, system: VirtAddr, links: u64, name: u64) -> Vec<Sample> {
    let reader = Reader::new(&kernel.view);
    let nodes = list::nodes(reader, "list of processes", system.wrapping_add(links), MAX_PROCESSES);
    // The list's head lies in the image.
    let inside = |node: &VirtAddr| kernel.image.as_ref().is_some_and(|image| image.contains(*node));
    let sample = |node: VirtAddr| {
        let bytes = Structure::read(&kernel.view, node.wrapping_sub(links), LEN).ok()?;
        let name = bytes.text(name, NAME).ok()?;
        Some(Sample { bytes, name, view: None, peb: None, image: None })
    };
    nodes.items.into_iter().filter(|node| !inside(node)).filter_map(sample).take(MAX_LOOKED_AT).collect()
}

/// Place of the process' block: none in System, and in others one that names an image.
fn find_peb(reader: &Reader<'_>, system: &Structure, samples: &[Sample]) -> Option<u64> {
    let names_image = |sample: &Sample, offset: u64| {
        let peb = sample.bytes.pointer(offset).ok().filter(|at| reader.is_user(*at))?;
        let view = sample.view.as_ref().filter(|_| peb.is_page_aligned(PageSize::KIB_4))?;
        let own = Reader::new(view);
        let image = own.pointer(peb, own.either(0x10, 0x8)).ok().filter(|at| own.is_user(*at))?;
        own.value::<[u8; 2]>(image, 0).ok().filter(|magic| magic == b"MZ")
    };
    let fits = |offset: &u64| {
        system.word(*offset).is_ok_and(|word| word == 0)
            && samples.iter().any(|sample| names_image(sample, *offset).is_some())
    };
    only(places(reader, 0x80).filter(fits))
}

/// Place of the parent's number: none in System, System in the session manager, and a process' number in all others.
fn parent(reader: &Reader<'_>, layout: &mut Layout, system: &Structure, samples: &[Sample]) {
    let Some(manager) = samples.iter().find(|sample| sample.name.eq_ignore_ascii_case("smss.exe")) else { return };
    let fits = |offset: &u64| {
        let word = |bytes: &Structure| bytes.word(*offset).ok();
        word(system) == Some(0)
            && word(&manager.bytes) == Some(SYSTEM)
            && samples.iter().all(|one| word(&one.bytes).is_some_and(|pid| pid % 4 == 0 && pid < 1 << 26))
    };
    let found = only(places(reader, 0x80).filter(fits));
    if let Some(offset) = found {
        layout.add("_EPROCESS.InheritedFromUniqueProcessId", offset, FROM);
    }
}

/// The width of a view's pointers decides which processes can be compared with it.
pub(super) fn view_of(sample: &Sample) -> Option<&dyn MemoryView> {
    sample.view.as_ref().map(|view| -> &dyn MemoryView { view })
}
