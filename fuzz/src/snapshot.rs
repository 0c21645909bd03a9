//! Targets for files that hold physical memory.
//!
//! Owns: what must be true of anything that a parser accepted. Must not know: formats.

use std::{io, path::Path};

use memflow_core::{
    Error, PhysAddr, Result,
    error::Reason,
    memory::{Outcome, PhysRead, PhysicalMemoryExt, RunMap},
};
use memflow_snapshot::{
    BytesInput, MemoryLayout, OpenOptions, ParseOptions, ParsedImage, ReadAt, crash_dump, elf, firmware, fuzzing, lime,
    open_bytes, vmware,
};

/// The name of the input in errors.
const NAME: &str = "input";
/// Most bytes unpacked: enough for several rounds of the decoder's window.
const MAX_UNPACKED: u64 = 1 << 20;

/// ELF cores.
pub fn elf(data: &[u8]) {
    image(data, elf::parse);
}

/// LiME images.
pub fn lime(data: &[u8]) {
    image(data, lime::parse);
}

/// Windows crash dumps.
pub fn crash_dump(data: &[u8]) {
    image(data, crash_dump::parse);
}

/// AVML images, with the pages that come out.
pub fn avml(data: &[u8]) {
    packed(b"AVML", data);
}

/// kdump-compressed dumps, with the pages that come out.
pub fn kdump(data: &[u8]) {
    packed(b"KDUMP   ", data);
}

/// QEMU's migration streams, with the pages that come out.
pub fn migration(data: &[u8]) {
    packed(b"QEVM\0\0\0\x03", data);
}

/// Domains that libvirt saved, with the pages that come out.
pub fn libvirt(data: &[u8]) {
    packed(b"LibvirtQemudSave", data);
}

/// A file that begins as its format does, so that it gets past the detection.
fn packed(magic: &[u8], data: &[u8]) {
    let mut file = magic.to_vec();
    file.extend(data.get(magic.len()..).unwrap_or_default());
    open(&file);
}

/// Snapshot states of VMware.
pub fn vmware(data: &[u8]) {
    match vmware::parse(&BytesInput::new(NAME.as_ref(), data)) {
        Ok(state) => {
            let (offset, len) = state.memory.unwrap_or_default();
            assert!(offset.checked_add(len).is_some_and(|end| end <= data.len() as u64), "{state:?}");
            assert!(state.regions.len() <= data.len() && state.vcpus.len() <= data.len());
            if let Err(error) = state.runs(offset) {
                assert_readable(&error);
            }
        }
        Err(error) => assert_readable(&error),
    }
}

fn image(data: &[u8], parse: fn(&dyn ReadAt, ParseOptions) -> Result<ParsedImage>) {
    let input = BytesInput::new(NAME.as_ref(), data);
    for partial in [false, true] {
        match parse(&input, ParseOptions { partial }) {
            Ok(image) => assert_inside(&image.runs, data.len() as u64),
            Err(error) => assert_readable(&error),
        }
    }
}

/// States of monitors that lie beside memory: its length, then Firecracker's state or Cloud Hypervisor's.
pub fn beside(data: &[u8]) {
    let Some((len, state)) = data.split_first_chunk() else { return };
    let len = u64::from_le_bytes(*len);
    match fuzzing::cloud_hypervisor(state, len) {
        Ok(Some(image)) => {
            assert_inside(&image.runs, len);
            assert_eq!(image.runs.total_bytes(), len, "every byte of the memory is somewhere");
        }
        Ok(None) => {}
        Err(error) => assert_readable(&error),
    }
    if let Some((image, alternatives)) = fuzzing::firecracker(state, len) {
        assert!(!image.notes.is_empty());
        let others = alternatives.iter().filter_map(|layout| layout.runs(len));
        for runs in others.chain([image.runs]) {
            assert_inside(&runs, len);
        }
    }
}

/// The text of the note in which the crate's own dumps keep what is known of a machine.
pub fn facts_note(data: &[u8]) {
    let (facts, unread) = fuzzing::facts_note(data);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(facts.vcpus.len() <= lines && unread <= lines as u64);
    // What is told is read again.
    let text = fuzzing::facts_text(&facts).unwrap_or_default();
    assert_eq!(fuzzing::facts_note(text.as_bytes()), (facts, 0), "{text}");
}

/// Lists of runs given by hand, as text.
pub fn runs(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<RunMap>() {
        // What is printed can be typed in again.
        Ok(runs) => {
            let printed = runs.to_string();
            assert_eq!(printed.parse().ok(), Some(runs), "{printed}");
        }
        Err(error) => assert_readable(&error),
    }
}

/// gzip streams.
pub fn gzip(data: &[u8]) {
    compressed(&[0x1f, 0x8b, 8], data);
}

/// LZ4 frames; those of the older kind if the first byte says so.
pub fn lz4(data: &[u8]) {
    let legacy = data.first() == Some(&2);
    compressed(if legacy { &[0x02, 0x21, 0x4c, 0x18] } else { &[0x04, 0x22, 0x4d, 0x18] }, data);
}

/// xz streams.
pub fn xz(data: &[u8]) {
    compressed(b"\xfd7zXZ\0", data);
}

/// Zstandard streams.
pub fn zstd(data: &[u8]) {
    let skippable = data.get(1..4) == Some(&[0x2a, 0x4d, 0x18]);
    compressed(if skippable { &[0x50, 0x2a, 0x4d, 0x18] } else { &[0x28, 0xb5, 0x2f, 0xfd] }, data);
}

/// A stream that begins as its compression does: kept whole, and read at random. Both hold the same.
fn compressed(magic: &[u8], data: &[u8]) {
    let mut file = magic.to_vec();
    file.extend(data.get(magic.len()..).unwrap_or_default());
    open(&file);
    for partial in [false, true] {
        // What comes out is taken as it is, so that its bytes can be compared.
        let with = |cache| {
            let layout = MemoryLayout::Runs(RunMap::flat(1));
            let options = OpenOptions {
                max_unpacked: Some(MAX_UNPACKED),
                unpacked_cache: cache,
                partial,
                layout,
                ..OpenOptions::default()
            };
            let mut byte = [0];
            let snapshot = open_bytes(NAME, &file, &options).ok()?;
            snapshot.memory.read_into(PhysAddr::new(0), &mut byte).ok().map(|()| byte)
        };
        let (whole, at_random) = (with(None), with(Some(0)));
        assert!(whole == at_random, "{whole:?} and {at_random:?}");
    }
}

/// The firmware's tables in a raw image.
pub fn firmware(data: &[u8]) {
    let Ok(ranges) = firmware::ram_ranges(&FirmwareArea(data)) else { panic!("an image in memory can always be read") };
    for pair in ranges.windows(2) {
        assert!(pair[0].last() < Some(pair[1].start()), "sorted and disjoint: {ranges:?}");
    }
}

/// An image of 1 MiB that holds nothing but what lies where the firmware's tables are.
struct FirmwareArea<'a>(&'a [u8]);

impl ReadAt for FirmwareArea<'_> {
    fn path(&self) -> &Path {
        NAME.as_ref()
    }

    fn size(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        for (byte, at) in buf.iter_mut().zip(offset..self.size()) {
            let inside = at.checked_sub(0xf_0000).and_then(|at| self.0.get(at as usize));
            *byte = inside.copied().unwrap_or_default();
        }
        Ok(buf.len().min(self.size().saturating_sub(offset) as usize))
    }
}

/// Whole files, from detection to the memory that comes out.
pub fn open(data: &[u8]) {
    for partial in [false, true] {
        let options = OpenOptions { max_unpacked: Some(MAX_UNPACKED), partial, ..OpenOptions::default() };
        let snapshot = match open_bytes(NAME, data, &options) {
            Ok(snapshot) => snapshot,
            Err(error) => return assert_readable(&error),
        };
        // The first and the last bytes of every run arrive, and none of what lies behind it.
        let metadata = snapshot.memory.metadata();
        for run in metadata.runs.runs() {
            let Some(last) = run.range.last() else { panic!("an empty run in {metadata:?}") };
            for (at, there) in [(Some(run.range.start()), true), (Some(last), true), (last.checked_add(1), false)] {
                let Some(at) = at else { continue };
                let mut byte = [0];
                let mut ops = [PhysRead::new(at, &mut byte)];
                let arrived = snapshot.memory.read_batch(&mut ops).is_ok();
                // What is compressed piece by piece shows its damage when it is read.
                let damaged = matches!(ops[0].outcome, Outcome::Failed { reason: Reason::Damaged { .. }, .. });
                assert_eq!(arrived || damaged, there || metadata.runs.find(at).is_some(), "{at} of {metadata:?}");
            }
        }
    }
}

/// Every run lies in the `len` bytes, and no address is there twice.
fn assert_inside(runs: &RunMap, len: u64) {
    let mut next = Some(PhysAddr::new(0));
    for run in runs.runs() {
        let end = run.offset.checked_add(run.range.len());
        assert!(end.is_some_and(|end| end <= len), "{run:?} leaves {len} bytes");
        assert!(next.is_some_and(|next| next <= run.range.start()) && !run.range.is_empty(), "{runs:?}");
        next = run.range.end();
    }
}

/// An error can be told to a person.
pub(crate) fn assert_readable(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() < 64 << 10, "{} bytes of text", text.len());
}
