//! Other projects over the same image in the same process.
//!
//! Owns: which of them takes part where, and what they see of an image. Must not know: our walker.
//! Keeps: each in the fastest form that its interface offers: memory in place, no cache that only costs, buffers set up before; its
//! answers are compared with ours before it is timed.

mod memf;
mod memflow;

use memflow_core::{MemoryViewExt, PhysRange, VirtAddr, memory::DirectMap};

use crate::{
    Checked, Image,
    peer::{Mistakes, Peer},
};

/// What is in a buffer where nothing was read.
const UNTOUCHED: u8 = 0xa5;

/// The first region of an image, which starts at address zero.
fn bytes(image: &Image) -> Option<&[u8]> {
    let map: &DirectMap = image.memory.direct_map()?;
    let range: PhysRange = map.regions().first()?.range;
    map.slice(range).filter(|_| range.start().is_null())
}

/// Our translations.
fn translations(image: &Image, addresses: &[u64]) -> Vec<u64> {
    let translate = |address: &u64| image.space.translate(&*image.memory, VirtAddr::new(*address));
    addresses.iter().map(|address| translate(address).map_or(0, |found| found.phys.as_u64())).collect()
}

/// Compares what was read, `len` bytes for each address, with what we read there.
fn read_mistakes<'a>(image: &Image, addresses: impl Iterator<Item = &'a u64>, out: &[u8], len: usize) -> Mistakes {
    let view = image.view();
    let mut expected = vec![0; len];
    Mistakes::count(addresses.zip(out.chunks(len)).map(|(address, found)| {
        let read = view.read_into(VirtAddr::new(*address), &mut expected);
        assert!(read.is_ok(), "a mapped address could not be read");
        let touched = found.iter().any(|byte| *byte != UNTOUCHED);
        (touched.then_some(found == expected), true)
    }))
}

/// One address per call.
pub(crate) fn translate_single<'a>(checked: &Checked<'a>) -> Vec<Peer<'a>> {
    vec![memflow::translate_single(checked), memf::translate(checked)]
}

/// A batch per call; memf has no such call, so it translates one by one. `mixed`: user and kernel addresses share calls.
pub(crate) fn translate_batch<'a>(checked: &Checked<'a>, batch: usize, mixed: bool) -> Vec<Peer<'a>> {
    vec![memflow::translate_batch(checked, batch, mixed), memf::translate(checked)]
}

/// Reads of `len` bytes; batch size 0 and memf read one by one.
pub(crate) fn read<'a>(checked: &Checked<'a>, batch: usize, len: usize, mixed: bool) -> Vec<Peer<'a>> {
    vec![memflow::read(checked, batch, len, mixed), memf::read(checked, len)]
}

/// One read of consecutive addresses.
pub(crate) fn sequential(image: &Image, start: u64, len: usize) -> Vec<Peer<'_>> {
    vec![memflow::sequential(image, start, len), memf::sequential(image, start, len)]
}

/// The map of the whole address space, of `pages` pages and `bytes` bytes.
pub(crate) fn map(image: &Image, pages: usize, bytes: u64) -> Vec<Peer<'_>> {
    vec![memflow::map(image, pages, bytes), Peer::absent(memf::NAME, "no such call")]
}

/// Two threads, each with a clone or a handle of its own, as neither shares one.
pub(crate) fn threads<'a>(checked: &Checked<'a>, batch: usize, len: usize) -> Vec<Peer<'a>> {
    vec![memflow::threads(checked, batch, len), memf::threads(checked, len)]
}
