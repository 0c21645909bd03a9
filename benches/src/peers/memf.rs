//! memf-core 0.2.6: one address per call.
//!
//! Owns: how it is set up and called. Must not know: how it is timed, memflow 0.2.4.
//! Keeps: its own cache of 4,096 translations, which it always has.

use std::hint::black_box;

use memf_core::vas::{TranslationMode, VirtualAddressSpace};
use memf_format::{PhysicalMemoryProvider, PhysicalRange};

use super::{UNTOUCHED, bytes, read_mistakes, translations};
use crate::{
    Checked, Image,
    peer::{Halves, Mistakes, Peer, Work},
};

pub(super) const NAME: &str = "memf-core 0.2.6";

/// The memory of an image, as it takes it.
struct Bytes<'a> {
    bytes: &'a [u8],
    ranges: [PhysicalRange; 1],
}

impl PhysicalMemoryProvider for Bytes<'_> {
    fn read_phys(&self, addr: u64, buf: &mut [u8]) -> memf_format::Result<usize> {
        let rest = usize::try_from(addr).ok().and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn ranges(&self) -> &[PhysicalRange] {
        &self.ranges
    }

    fn format_name(&self) -> &str {
        "bytes"
    }
}

type Space<'a> = VirtualAddressSpace<Bytes<'a>>;

fn space(image: &Image) -> Result<Space<'_>, &'static str> {
    let bytes = bytes(image).ok_or("not in one piece")?;
    let mode = match image.space.architecture().levels.len() {
        4 => TranslationMode::X86_64FourLevel,
        5 => TranslationMode::X86_645Level,
        _ => return Err("not supported"),
    };
    let ranges = [PhysicalRange { start: 0, end: bytes.len() as u64 }];
    Ok(VirtualAddressSpace::new(Bytes { bytes, ranges }, image.space.root().as_u64(), mode))
}

struct Translate<'a> {
    image: &'a Image,
    space: Space<'a>,
    addresses: Vec<u64>,
    out: Vec<Option<u64>>,
}

impl Work for Translate<'_> {
    fn run(&mut self, upto: usize, _: usize) {
        for (out, address) in self.out.iter_mut().zip(self.addresses.iter().take(upto)) {
            *out = self.space.virt_to_phys(*address).ok();
        }
        black_box(&mut self.out);
    }

    fn mistakes(&mut self, upto: usize) -> Mistakes {
        let expected = translations(self.image, &self.addresses[..upto]);
        Mistakes::count(self.out.iter().copied().zip(expected))
    }
}

struct Read<'a> {
    image: &'a Image,
    space: Space<'a>,
    addresses: Vec<u64>,
    len: usize,
    out: Vec<u8>,
}

impl Work for Read<'_> {
    fn run(&mut self, upto: usize, _: usize) {
        for (out, address) in self.out.chunks_mut(self.len).zip(self.addresses.iter().take(upto)) {
            let _ = self.space.read_virt(*address, out);
        }
        black_box(&mut self.out);
    }

    fn mistakes(&mut self, upto: usize) -> Mistakes {
        read_mistakes(self.image, self.addresses.iter().take(upto), &self.out, self.len)
    }
}

fn translations_of<'a>(image: &'a Image, addresses: &[u64]) -> Result<Translate<'a>, &'static str> {
    Ok(Translate { image, space: space(image)?, addresses: addresses.to_vec(), out: vec![None; addresses.len()] })
}

fn reads_of<'a>(image: &'a Image, addresses: &[u64], len: usize) -> Result<Read<'a>, &'static str> {
    let out = vec![UNTOUCHED; addresses.len() * len];
    Ok(Read { image, space: space(image)?, addresses: addresses.to_vec(), len, out })
}

fn enter<'a, W: Work + 'a>(work: Result<W, &'static str>, total: usize) -> Peer<'a> {
    match work {
        Ok(work) => Peer::new(NAME, total, 1, work),
        Err(why) => Peer::absent(NAME, why),
    }
}

pub(super) fn translate<'a>(checked: &Checked<'a>) -> Peer<'a> {
    enter(translations_of(checked.image(), checked.addresses()), checked.addresses().len())
}

pub(super) fn read<'a>(checked: &Checked<'a>, len: usize) -> Peer<'a> {
    enter(reads_of(checked.image(), checked.addresses(), len), checked.addresses().len())
}

pub(super) fn sequential(image: &Image, start: u64, len: usize) -> Peer<'_> {
    match reads_of(image, &[start], len) {
        Ok(work) => Peer::once(NAME, len >> 10, work),
        Err(why) => Peer::absent(NAME, why),
    }
}

pub(super) fn threads<'a>(checked: &Checked<'a>, len: usize) -> Peer<'a> {
    let (image, all) = (checked.image(), checked.addresses());
    let (one, other) = all.split_at(all.len() / 2);
    if len == 0 {
        let half = |addresses| translations_of(image, addresses);
        enter(half(one).and_then(|one| Ok(Halves([one, half(other)?]))), all.len())
    } else {
        let half = |addresses| reads_of(image, addresses, len);
        enter(half(one).and_then(|one| Ok(Halves([one, half(other)?]))), all.len())
    }
}
