//! Other projects over the same image in the same process.
//!
//! Owns: how memflow 0.2.4 and memf-core are set up and called. Must not know: our walker.
//! Keeps: each in the fastest form that its interface offers: memory in place, no cache that only costs, buffers set up before.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use memf_core::vas::{TranslationMode, VirtualAddressSpace};
use memf_format::{PhysicalMemoryProvider, PhysicalRange};
use memflow::{
    architecture::x86::x64,
    cglue::CTup2,
    connector::MappedPhysicalMemory,
    mem::{DirectTranslate, MemoryMap, MemoryView, VirtualDma, VirtualTranslate, virt_translate::VirtualTranslation},
    types::Address,
};
use memflow_core::{PhysRange, memory::DirectMap};

use crate::{Checked, Image, measure::Contender};

/// The longest that one run may take.
const PATIENCE: Duration = Duration::from_millis(250);
const MEMFLOW: &str = "memflow 0.2.4";
const MEMF: &str = "memf-core 0.2.6";

/// Adds peers after the contenders that are there.
pub(crate) fn with<'a>(mut contenders: Vec<Contender<'a>>, peers: Vec<Contender<'a>>) -> Vec<Contender<'a>> {
    contenders.extend(peers);
    contenders
}

type Dma<'a> = VirtualDma<
    MappedPhysicalMemory<&'a [u8], Map<'a>>,
    DirectTranslate,
    memflow::architecture::x86::X86VirtualTranslate,
>;

/// The memory of an image, as memflow takes it.
#[derive(Clone)]
struct Map<'a>(MemoryMap<&'a [u8]>);

impl<'a> AsRef<MemoryMap<&'a [u8]>> for Map<'a> {
    fn as_ref(&self) -> &MemoryMap<&'a [u8]> {
        &self.0
    }
}

/// The first region of an image, which starts at address zero.
fn bytes(image: &Image) -> Option<&[u8]> {
    let map: &DirectMap = image.memory.direct_map()?;
    let range: PhysRange = map.regions().first()?.range;
    map.slice(range).filter(|_| range.start().is_null())
}

/// memflow has four levels only.
fn dma(image: &Image) -> Option<Dma<'_>> {
    if image.space.architecture().levels.len() != 4 {
        return None;
    }
    let mut map = MemoryMap::new();
    map.push(Address::from(0_u64), bytes(image)?);
    let memory = MappedPhysicalMemory::with_info(Map(map));
    Some(VirtualDma::new(memory, x64::ARCH, x64::new_translator(Address::from(image.space.root().as_u64()))))
}

/// The memory of an image, as memf takes it.
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

fn memf(image: &Image) -> Option<VirtualAddressSpace<Bytes<'_>>> {
    let bytes = bytes(image)?;
    let mode = match image.space.architecture().levels.len() {
        4 => TranslationMode::X86_64FourLevel,
        5 => TranslationMode::X86_645Level,
        _ => return None,
    };
    let ranges = [PhysicalRange { start: 0, end: bytes.len() as u64 }];
    Some(VirtualAddressSpace::new(Bytes { bytes, ranges }, image.space.root().as_u64(), mode))
}

/// How many of `count` items, in batches, can be done in a time that one waits for; `None` when a single batch takes longer: with
/// user and kernel addresses in one batch, memflow takes milliseconds for each pair.
fn affordable(count: usize, batch: usize, run: &mut impl FnMut(usize)) -> Option<usize> {
    let few = batch.min(16).min(count);
    let started = Instant::now();
    run(few);
    let each = started.elapsed().as_nanos().max(1) / few.max(1) as u128;
    let batches = PATIENCE.as_nanos() / (each * batch as u128);
    let batches = usize::try_from(batches).unwrap_or(usize::MAX);
    (batches > 0).then(|| count.min(batch.saturating_mul(batches)))
}

/// One address per call.
pub(crate) fn translate_single<'a>(checked: &'a Checked<'_>) -> Vec<Contender<'a>> {
    let (image, count) = (checked.image(), checked.addresses().len());
    let memflow = dma(image).map(|mut dma| {
        let mut out = vec![0; count];
        Contender::new(MEMFLOW, move || {
            for (out, address) in out.iter_mut().zip(checked.addresses()) {
                *out = dma.virt_to_phys(Address::from(*address)).map_or(0, |found| found.address().to_umem());
            }
            black_box(&mut out);
        })
    });
    let memf = memf(image).map(|space| {
        let mut out = vec![0; count];
        Contender::new(MEMF, move || {
            for (out, address) in out.iter_mut().zip(checked.addresses()) {
                *out = space.virt_to_phys(*address).unwrap_or_default();
            }
            black_box(&mut out);
        })
    });
    memflow.into_iter().chain(memf).collect()
}

/// A batch per call; memf has no such call, so it translates one by one.
pub(crate) fn translate_batch<'a>(checked: &'a Checked<'_>, batch: usize) -> Vec<Contender<'a>> {
    let image = checked.image();
    let memflow = dma(image).and_then(|mut dma| {
        let ranges: Vec<_> = checked.addresses().iter().map(|address| CTup2(Address::from(*address), 1)).collect();
        let mut translate = move |upto: usize| {
            let mut sum = 0;
            for ranges in ranges[..upto].chunks(batch) {
                let found = &mut |found: VirtualTranslation| {
                    sum ^= found.out_physical.address().to_umem();
                    true
                };
                dma.virt_to_phys_list(ranges, found.into(), (&mut |_| true).into());
            }
            black_box(sum);
        };
        let count = affordable(checked.addresses().len(), batch, &mut translate)?;
        Some(Contender::new(MEMFLOW, move || translate(count)).with_items(count))
    });
    let memf = translate_single(checked).into_iter().filter(|contender| contender.name() == MEMF);
    memflow.into_iter().chain(memf).collect()
}

/// Reads of `len` bytes; batch size 0 and memf read one by one.
pub(crate) fn read<'a>(checked: &'a Checked<'_>, batch: usize, len: usize) -> Vec<Contender<'a>> {
    let image = checked.image();
    let total = checked.addresses().len() * len;
    let memflow = dma(image).and_then(|mut dma| {
        let mut out = vec![0; total];
        let mut read = move |upto: usize| {
            // Its operations are used up by a call, so they are made for each.
            let step = batch.max(1);
            let parts = out.chunks_mut(step * len).zip(checked.addresses()[..upto].chunks(step));
            for (out, addresses) in parts {
                if batch == 0 {
                    let _ = dma.read_raw_into(Address::from(addresses[0]), out);
                    continue;
                }
                let pairs = addresses.iter().zip(out.chunks_mut(len));
                let mut ops: Vec<_> = pairs.map(|(address, out)| CTup2(Address::from(*address), out.into())).collect();
                let _ = dma.read_raw_list(&mut ops);
            }
            black_box(&mut out);
        };
        let count = affordable(checked.addresses().len(), batch.max(1), &mut read)?;
        Some(Contender::new(MEMFLOW, move || read(count)).with_items(count))
    });
    let memf = memf(image).map(|space| {
        let mut out = vec![0; total];
        Contender::new(MEMF, move || {
            for (out, address) in out.chunks_mut(len).zip(checked.addresses()) {
                let _ = space.read_virt(*address, out);
            }
            black_box(&mut out);
        })
    });
    memflow.into_iter().chain(memf).collect()
}

/// One read of consecutive addresses.
pub(crate) fn sequential<'a>(image: &'a Image, start: u64, len: usize) -> Vec<Contender<'a>> {
    let memflow = dma(image).map(|mut dma| {
        let mut out = vec![0; len];
        Contender::new(MEMFLOW, move || {
            let _ = dma.read_raw_into(Address::from(start), &mut out);
            black_box(&mut out);
        })
    });
    let memf = memf(image).map(|space| {
        let mut out = vec![0; len];
        Contender::new(MEMF, move || {
            let _ = space.read_virt(start, &mut out);
            black_box(&mut out);
        })
    });
    memflow.into_iter().chain(memf).collect()
}

/// The map of the whole address space; memf has none.
pub(crate) fn map(image: &Image) -> Vec<Contender<'_>> {
    let memflow = dma(image).map(|mut dma| {
        Contender::new(MEMFLOW, move || {
            black_box(dma.virt_page_map_vec(0));
        })
    });
    memflow.into_iter().collect()
}
