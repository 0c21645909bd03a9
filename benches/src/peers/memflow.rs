//! memflow 0.2.4: batches by lists, memory as a mapped slice.
//!
//! Owns: how it is set up and called. Must not know: how it is timed, memf.
//! Keeps: no cache of its own, as they cost more than they save on memory in place; user and kernel addresses go in calls of their own
//! unless the case is about their mixture, as it takes milliseconds for each pair of them.

use std::{collections::HashMap, hint::black_box, ops::Range};

use memflow::{
    architecture::x86::x64,
    cglue::CTup2,
    connector::MappedPhysicalMemory,
    mem::{DirectTranslate, MemoryMap, MemoryView, VirtualDma, VirtualTranslate, virt_translate::VirtualTranslation},
    types::{Address, umem},
};

use super::{UNTOUCHED, bytes, read_mistakes, translations};
use crate::{
    Checked, Image,
    peer::{Halves, Mistakes, Peer, Work},
};

const NAME: &str = "memflow 0.2.4";

type Dma<'a> = VirtualDma<
    MappedPhysicalMemory<&'a [u8], Map<'a>>,
    DirectTranslate,
    memflow::architecture::x86::X86VirtualTranslate,
>;

/// The memory of an image, as it takes it.
#[derive(Clone)]
struct Map<'a>(MemoryMap<&'a [u8]>);

impl<'a> AsRef<MemoryMap<&'a [u8]>> for Map<'a> {
    fn as_ref(&self) -> &MemoryMap<&'a [u8]> {
        &self.0
    }
}

/// It has four levels only.
fn dma(image: &Image) -> Result<Dma<'_>, &'static str> {
    if image.space.architecture().levels.len() != 4 {
        return Err("not supported");
    }
    let mut map = MemoryMap::new();
    map.push(Address::from(0_u64), bytes(image).ok_or("not in one piece")?);
    let memory = MappedPhysicalMemory::with_info(Map(map));
    Ok(VirtualDma::new(memory, x64::ARCH, x64::new_translator(Address::from(image.space.root().as_u64()))))
}

/// Addresses in the order in which they go into calls.
struct Calls {
    given: Vec<u64>,
    mixed: bool,
    /// The batch size that the rest was made for.
    batch: usize,
    addresses: Vec<u64>,
    calls: Vec<Range<usize>>,
}

impl Calls {
    fn new(given: &[u64], mixed: bool) -> Self {
        Self { given: given.to_vec(), mixed, batch: 0, addresses: Vec::new(), calls: Vec::new() }
    }

    /// True when there is something new.
    fn prepare(&mut self, batch: usize) -> bool {
        if batch == self.batch {
            return false;
        }
        self.batch = batch;
        self.addresses.clear();
        self.calls.clear();
        for chunk in self.given.chunks(batch) {
            let from = self.addresses.len();
            if self.mixed {
                self.addresses.extend(chunk);
                self.calls.push(from..self.addresses.len());
                continue;
            }
            self.addresses.extend(chunk.iter().filter(|address| **address >> 63 == 0));
            let between = self.addresses.len();
            self.addresses.extend(chunk.iter().filter(|address| **address >> 63 == 1));
            let calls = [from..between, between..self.addresses.len()];
            self.calls.extend(calls.into_iter().filter(|call| !call.is_empty()));
        }
        true
    }

    fn upto(&self, upto: usize) -> impl Iterator<Item = Range<usize>> {
        self.calls.iter().take_while(move |call| call.start < upto).map(move |call| call.start..call.end.min(upto))
    }
}

struct Translate<'a> {
    image: &'a Image,
    dma: Dma<'a>,
    calls: Calls,
    single: bool,
    ranges: Vec<CTup2<Address, umem>>,
    found: Vec<(u64, u64)>,
}

impl Work for Translate<'_> {
    fn run(&mut self, upto: usize, batch: usize) {
        if self.calls.prepare(batch) {
            self.ranges = self.calls.addresses.iter().map(|address| CTup2(Address::from(*address), 1)).collect();
            self.found.reserve(self.ranges.len());
        }
        self.found.clear();
        let Self { dma, calls, ranges, found, single, .. } = self;
        if *single {
            for range in &ranges[..upto] {
                if let Ok(phys) = dma.virt_to_phys(range.0) {
                    found.push((range.0.to_umem(), phys.address().to_umem()));
                }
            }
        } else {
            for call in calls.upto(upto) {
                let each = &mut |one: VirtualTranslation| {
                    found.push((one.in_virtual.to_umem(), one.out_physical.address().to_umem()));
                    true
                };
                dma.virt_to_phys_list(&ranges[call], each.into(), (&mut |_| true).into());
            }
        }
        black_box(found);
    }

    fn mistakes(&mut self, upto: usize) -> Mistakes {
        let found: HashMap<u64, u64> = self.found.iter().copied().collect();
        let addresses = &self.calls.addresses[..upto];
        let expected = translations(self.image, addresses);
        Mistakes::count(addresses.iter().map(|address| found.get(address).copied()).zip(expected))
    }
}

struct Read<'a> {
    image: &'a Image,
    dma: Dma<'a>,
    calls: Calls,
    single: bool,
    len: usize,
    out: Vec<u8>,
}

impl Work for Read<'_> {
    fn run(&mut self, upto: usize, batch: usize) {
        let Self { dma, calls, len, out, .. } = self;
        calls.prepare(batch);
        if self.single {
            for (out, address) in out.chunks_mut(*len).zip(calls.addresses.iter().take(upto)) {
                let _ = dma.read_raw_into(Address::from(*address), out);
            }
        } else {
            for call in calls.upto(upto) {
                // Its operations are used up by a call, so they are made for each.
                let pairs = calls.addresses[call.clone()].iter().zip(out[call.start * *len..].chunks_mut(*len));
                let mut ops: Vec<_> = pairs.map(|(address, out)| CTup2(Address::from(*address), out.into())).collect();
                let _ = dma.read_raw_list(&mut ops);
            }
        }
        black_box(out);
    }

    fn mistakes(&mut self, upto: usize) -> Mistakes {
        read_mistakes(self.image, self.calls.addresses.iter().take(upto), &self.out, self.len)
    }
}

struct MapAll<'a> {
    dma: Dma<'a>,
    bytes: u64,
    expected: u64,
}

impl Work for MapAll<'_> {
    fn run(&mut self, _: usize, _: usize) {
        let found = self.dma.virt_page_map_vec(0);
        self.bytes = black_box(found).iter().map(|range| range.1).sum();
    }

    /// In units of 4 KiB: it joins neighbours.
    fn mistakes(&mut self, upto: usize) -> Mistakes {
        let page = |bytes: u64| usize::try_from(bytes >> 12).unwrap_or(usize::MAX);
        Mistakes {
            wrong: page(self.bytes.saturating_sub(self.expected)),
            missing: page(self.expected.saturating_sub(self.bytes)),
            of: upto,
        }
    }
}

fn translate<'a>(image: &'a Image, addresses: &[u64], mixed: bool) -> Result<Translate<'a>, &'static str> {
    let (calls, dma) = (Calls::new(addresses, mixed), dma(image)?);
    Ok(Translate { image, dma, calls, single: false, ranges: Vec::new(), found: Vec::new() })
}

fn reads<'a>(image: &'a Image, addresses: &[u64], len: usize, mixed: bool) -> Result<Read<'a>, &'static str> {
    let (calls, dma) = (Calls::new(addresses, mixed), dma(image)?);
    Ok(Read { image, dma, calls, single: false, len, out: vec![UNTOUCHED; addresses.len() * len] })
}

fn enter<'a, W: Work + 'a>(work: Result<W, &'static str>, total: usize, batch: usize) -> Peer<'a> {
    match work {
        Ok(work) => Peer::new(NAME, total, batch, work),
        Err(why) => Peer::absent(NAME, why),
    }
}

pub(super) fn translate_single<'a>(checked: &Checked<'a>) -> Peer<'a> {
    let work = translate(checked.image(), checked.addresses(), true).map(|work| Translate { single: true, ..work });
    enter(work, checked.addresses().len(), 1)
}

pub(super) fn translate_batch<'a>(checked: &Checked<'a>, batch: usize, mixed: bool) -> Peer<'a> {
    enter(translate(checked.image(), checked.addresses(), mixed), checked.addresses().len(), batch)
}

pub(super) fn read<'a>(checked: &Checked<'a>, batch: usize, len: usize, mixed: bool) -> Peer<'a> {
    let work = reads(checked.image(), checked.addresses(), len, mixed);
    enter(work.map(|work| Read { single: batch == 0, ..work }), checked.addresses().len(), batch.max(1))
}

pub(super) fn sequential(image: &Image, start: u64, len: usize) -> Peer<'_> {
    match reads(image, &[start], len, true) {
        Ok(work) => Peer::once(NAME, len >> 10, Read { single: true, ..work }),
        Err(why) => Peer::absent(NAME, why),
    }
}

pub(super) fn map(image: &Image, pages: usize, expected: u64) -> Peer<'_> {
    match dma(image) {
        Ok(dma) => Peer::once(NAME, pages, MapAll { dma, bytes: 0, expected }),
        Err(why) => Peer::absent(NAME, why),
    }
}

pub(super) fn threads<'a>(checked: &Checked<'a>, batch: usize, len: usize) -> Peer<'a> {
    let (image, all) = (checked.image(), checked.addresses());
    let (one, other) = all.split_at(all.len() / 2);
    if len == 0 {
        let half = |addresses| translate(image, addresses, false);
        enter(half(one).and_then(|one| Ok(Halves([one, half(other)?]))), all.len(), batch)
    } else {
        let half = |addresses| reads(image, addresses, len, false);
        enter(half(one).and_then(|one| Ok(Halves([one, half(other)?]))), all.len(), batch)
    }
}
