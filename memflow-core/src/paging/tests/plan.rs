//! Random machines: a list of decisions that proptest can shrink, and the addresses worth asking about.

use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr},
    testkit::{Machine, MachineBuilder, MappedPage, PagingMode, entry_bits::*},
};

/// Low memory of every random machine.
pub(crate) const LOW_MEMORY: u64 = 512 << 10;

/// Memory in which large pages lie, beyond the low memory.
pub(crate) const HIGH_MEMORY: u64 = 0x4000_0000;
const HIGH_LEN: u64 = 64 << 10;

/// Pages, damage and holes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: PagingMode,
    pages: Vec<Page>,
    damage: Vec<(prop::sample::Index, prop::sample::Index, Damage)>,
    hole: Option<(u64, u64)>,
}

#[derive(Clone, Debug)]
struct Page {
    base: prop::sample::Index,
    number: u64,
    frame: u64,
    size: prop::sample::Index,
    bits: u64,
}

/// What is done to an entry on the way to a page.
#[derive(Clone, Debug)]
enum Damage {
    FlipBit(u32),
    Replace(u64),
    /// The entry leads to its own table.
    PointToItself,
    /// Not present, but not zero.
    Absent,
}

fn page() -> impl Strategy<Value = Page> {
    let bits = prop_oneof![
        4 => Just(PRESENT | WRITABLE | USER | ACCESSED | DIRTY),
        2 => Just(PRESENT | USER | GLOBAL),
        1 => any::<u16>().prop_map(|bits| u64::from(bits) & 0xf7f | PRESENT),
    ];
    (any::<prop::sample::Index>(), 0u64..6, 0u64..16, any::<prop::sample::Index>(), bits)
        .prop_map(|(base, number, frame, size, bits)| Page { base, number, frame, size, bits })
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0u32..64).prop_map(Damage::FlipBit),
        any::<u64>().prop_map(Damage::Replace),
        Just(Damage::PointToItself),
        Just(Damage::Absent),
    ]
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let hole = prop::option::of((0u64..LOW_MEMORY, 1u64..0x3000));
    (
        prop::sample::select(PagingMode::ALL.to_vec()),
        prop::collection::vec(page(), 1..24),
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), damage()), 0..4),
        hole,
    )
        .prop_map(|(mode, pages, damage, hole)| Plan { mode, pages, damage, hole })
}

/// Where pages are put: the ends of the halves, places where one table ends and the next begins.
fn bases(mode: PagingMode) -> &'static [u64] {
    match mode {
        PagingMode::X86NoPse | PagingMode::X86 | PagingMode::Pae => {
            &[0, 0x003f_e000, 0x3fff_e000, 0x8000_0000, 0xffff_a000]
        }
        PagingMode::X64 => &[
            0,
            0x001f_e000,
            0x3fff_e000,
            0x0000_7fff_ffff_a000,
            0xffff_8000_0000_0000,
            0xffff_ffff_8000_0000,
            0xffff_ffff_ffff_a000,
        ],
        PagingMode::La57 => &[
            0,
            0x001f_e000,
            0x0000_7fff_ffff_e000,
            0x00ff_ffff_ffff_a000,
            0xff00_0000_0000_0000,
            0xffff_ffff_8000_0000,
            0xffff_ffff_ffff_a000,
        ],
    }
}

/// Addresses that are special whatever is mapped.
const EDGES: &[u64] = &[
    0,
    1,
    0xfff,
    0x1000,
    0xffff_ffff,
    0x1_0000_0000,
    0x0000_7fff_ffff_ffff,
    0x0000_8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0x00ff_ffff_ffff_ffff,
    0x0100_0000_0000_0000,
    0xfeff_ffff_ffff_ffff,
    0xff00_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

impl Plan {
    /// The machine, and the addresses around everything that was mapped.
    pub(crate) fn build(&self) -> (Machine, Vec<VirtAddr>) {
        let (builder, probes) = self.builder();
        (builder.build().unwrap(), probes)
    }

    /// The machine before it is finished, and the addresses around everything that was mapped.
    pub(crate) fn builder(&self) -> (MachineBuilder, Vec<VirtAddr>) {
        let mut builder = MachineBuilder::new(self.mode, LOW_MEMORY).unwrap();
        builder.add_memory(PhysAddr::new(HIGH_MEMORY), HIGH_LEN).unwrap();
        // Recognisable bytes: every eight say where they are. Tables overwrite them.
        for at in (LOW_MEMORY / 2..LOW_MEMORY).chain(HIGH_MEMORY..HIGH_MEMORY + HIGH_LEN).step_by(8) {
            builder.write(PhysAddr::new(at), &(at ^ 0x5a5a).to_le_bytes()).unwrap();
        }
        let mut mapped: Vec<MappedPage> = Vec::new();
        for page in &self.pages {
            let shift = *page.size.get(self.mode.page_shifts());
            let size = PageSize::from_shift(shift).unwrap();
            let base = *page.base.get(bases(self.mode));
            let virt = base.wrapping_add(page.number << shift);
            let virt =
                if self.mode.entry_bytes() == 4 || self.mode == PagingMode::Pae { virt & 0xffff_ffff } else { virt };
            // Neighbouring numbers often get neighbouring frames, so that runs can merge.
            let frame = if page.frame < 12 { page.number } else { page.frame };
            let phys =
                if shift == 12 { LOW_MEMORY / 2 + (frame << 12) } else { HIGH_MEMORY + ((page.frame % 2) << shift) };
            // A page that lies in the way of another is simply left out.
            mapped.extend(builder.map(VirtAddr::new(virt), PhysAddr::new(phys), size, page.bits).ok());
        }
        for (which, depth, damage) in &self.damage {
            if mapped.is_empty() {
                break;
            }
            let entry = *depth.get(&which.get(&mapped).entries);
            let old = builder.entry(entry.at).unwrap();
            let new = match damage {
                Damage::FlipBit(bit) => old ^ 1 << bit,
                Damage::Replace(new) => *new,
                Damage::PointToItself => entry.table.page_base(PageSize::KIB_4).as_u64() | PRESENT | WRITABLE | USER,
                Damage::Absent => old & !PRESENT,
            };
            builder.set_entry(entry.at, new).unwrap();
        }
        if let Some((start, len)) = self.hole {
            builder.remove_memory(PhysRange::new(PhysAddr::new(start), len).unwrap());
        }
        let mut probes: Vec<VirtAddr> = EDGES.iter().map(|edge| VirtAddr::new(*edge)).collect();
        for page in &mapped {
            let first = page.virt;
            let last = first.wrapping_add(page.page.bytes() - 1);
            let middle = first.wrapping_add(page.page.bytes() / 3);
            probes.extend([first.wrapping_sub(1), first, first, middle, last, last.wrapping_add(1)]);
        }
        (builder, probes)
    }
}

/// Puts addresses into an order that has nothing to do with their value.
pub(crate) fn shuffle(addresses: &mut [VirtAddr], seed: u64) {
    let mut random = Random(seed);
    for index in (1..addresses.len()).rev() {
        addresses.swap(index, random.below(index as u64 + 1) as usize);
    }
}

/// A small generator of numbers (splitmix64), for tests that need many of them.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The memory of a machine as one that has to be called.
pub(crate) fn called(machine: &Machine) -> crate::testkit::ScriptedMemory<Arc<crate::memory::BufferMemory>> {
    crate::testkit::ScriptedMemory::new(machine.memory.clone())
}
