//! Page tables larger than any cache: machines that nobody could boot here.
//!
//! Owns: [`Generated`] and the bytes of its tables. Must not know: any walker.
//! Keeps: tables lie in shuffled order, as those of a system that has run for a while; page frames are drawn from little memory,
//! as data of that size would not fit.
//! Source: Intel SDM, volume 3A, chapter "Paging".

use std::sync::Arc;

use fastrand::Rng;
use memflow_core::{
    PageSize, VirtAddr,
    memory::{BufferMemory, PageBuffer, RunMap, SourceConfig, TargetFacts},
    paging::{AddressSpace, x86},
};

use crate::{
    Result,
    image::{Area, Image},
};

const KIB_4: u64 = 1 << 12;
const MIB_2: u64 = 1 << 21;
const GIB: u64 = 1 << 30;
/// Present, writable, user, accessed, dirty.
const RIGHTS: u64 = 0x67;
const LARGE: u64 = 1 << 7;
/// Memory that base pages lead to; it holds something.
const FRAMES: u64 = 64 << 20;
/// Memory that large pages lead to; behind the frames it is zero and takes no room.
const LARGE_FRAMES: u64 = GIB;
/// Where the halves start. Slots of 512 GiB, as programs and the direct map of Linux have them.
const USER: u64 = 0x0000_5580_0000_0000;
const KERNEL: u64 = 0xffff_8880_0000_0000;
const KERNEL_LA57: u64 = 0xff11_0000_0000_0000;
/// Spreads tables over their region; a prime, so that every place is hit once.
const STRIDE: u64 = 2_654_435_761;
/// Addresses of one benchmark: with a line of 64 bytes each, their entries alone are more than a cache holds.
const WORKING_SET: usize = 1 << 20;

/// A machine of which there are only the page tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generated {
    /// GiB that are mapped, half of them in each half of the address space; even, at most 1,024.
    pub gib: u64,
    /// Five levels instead of four.
    pub five_levels: bool,
    /// Pages of 2 MiB and 1 GiB among those of 4 KiB.
    pub mixed: bool,
}

/// What a table entry leads to, and how often its address is to be visited.
struct Layout {
    /// Virtual addresses of the lowest tables, in the order of their addresses.
    lowest: Vec<u64>,
    /// Of those above; an entry is a lowest table, or a large page.
    middle: Vec<u64>,
    user: Vec<Area>,
    kernel: Vec<Area>,
}

impl Generated {
    /// Those that are measured.
    pub const ALL: [Self; 8] = {
        let four = Self { gib: 16, five_levels: false, mixed: false };
        let (five, big) = (Self { five_levels: true, ..four }, Self { gib: 256, ..four });
        let big_five = Self { gib: 256, ..five };
        [
            four,
            Self { mixed: true, ..four },
            five,
            Self { mixed: true, ..five },
            big,
            Self { mixed: true, ..big },
            big_five,
            Self { mixed: true, ..big_five },
        ]
    };

    /// Its name in reports.
    pub fn name(self) -> String {
        let (levels, pages) = (if self.five_levels { 5 } else { 4 }, if self.mixed { "mixed" } else { "4KiB" });
        format!("{}GiB-{levels}level-{pages}", self.gib)
    }

    /// Makes it: 2 MiB of memory for each GiB of base pages.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn build(self) -> Result<Image> {
        let layout = self.layout();
        let data = if self.mixed { LARGE_FRAMES } else { FRAMES };
        let mut bytes = PageBuffer::new();
        append_data(&mut bytes, data)?;

        // The upper tables, then the middle ones, then the lowest, shuffled.
        let halves = [USER, if self.five_levels { KERNEL_LA57 } else { KERNEL }];
        let root = data;
        let upper = if self.five_levels { 5 } else { 3 };
        let middle_at = data + upper * KIB_4;
        let lowest_at = middle_at + layout.middle.len() as u64 * KIB_4;
        let [user_pdpt, kernel_pdpt] = [upper - 2, upper - 1].map(|table| data + table * KIB_4);
        if self.five_levels {
            let below = [data + KIB_4, data + 2 * KIB_4];
            append_table(&mut bytes, &[(halves[0] >> 48, below[0]), (halves[1] >> 48, below[1])])?;
            append_table(&mut bytes, &[(halves[0] >> 39, user_pdpt)])?;
            append_table(&mut bytes, &[(halves[1] >> 39, kernel_pdpt)])?;
        } else {
            append_table(&mut bytes, &[(halves[0] >> 39, user_pdpt), (halves[1] >> 39, kernel_pdpt)])?;
        }
        for half in halves {
            let entry = |gib: u64| {
                let virt = half + gib * GIB;
                let entry = match layout.middle.binary_search(&virt) {
                    Ok(index) => middle_at + index as u64 * KIB_4,
                    Err(_) => LARGE,
                };
                (virt >> 30, entry)
            };
            append_table(&mut bytes, &(0..self.gib / 2).map(entry).collect::<Vec<_>>())?;
        }
        let count = layout.lowest.len() as u64;
        let place_of = |index: usize| index as u64 * STRIDE % count;
        for virt in &layout.middle {
            let entry = |index: u64| {
                let virt = virt + index * MIB_2;
                let entry = match layout.lowest.binary_search(&virt) {
                    Ok(index) => lowest_at + place_of(index) * KIB_4,
                    Err(_) => LARGE | frame(virt, data, MIB_2),
                };
                (index, entry)
            };
            append_table(&mut bytes, &(0..512).map(entry).collect::<Vec<_>>())?;
        }
        let mut shuffled = vec![0; layout.lowest.len()];
        for (index, virt) in layout.lowest.iter().enumerate() {
            shuffled[place_of(index) as usize] = *virt;
        }
        for virt in shuffled {
            let entry = |index: u64| (index, frame(virt + index * KIB_4, FRAMES, KIB_4));
            append_table(&mut bytes, &std::array::from_fn::<_, 512, _>(|index| entry(index as u64)))?;
        }

        let name = self.name();
        let runs = RunMap::flat(bytes.bytes().len() as u64);
        let config = SourceConfig { name: name.as_str().into(), runs, facts: TargetFacts::default() };
        let arch = if self.five_levels { &x86::X64_LA57 } else { &x86::X64 };
        Ok(Image {
            name,
            memory: Arc::new(BufferMemory::new(config, bytes)?),
            space: AddressSpace::new(arch, root),
            user: layout.user,
            kernel: layout.kernel,
            working_set: WORKING_SET,
        })
    }

    /// Which tables there are. Of mixed pages, every eighth GiB is one page, and half of the rest is in pages of 2 MiB.
    fn layout(self) -> Layout {
        let mut layout = Layout { lowest: Vec::new(), middle: Vec::new(), user: Vec::new(), kernel: Vec::new() };
        for (half, areas) in
            [(USER, &mut layout.user), (if self.five_levels { KERNEL_LA57 } else { KERNEL }, &mut layout.kernel)]
        {
            let mut add = |virt: u64, page: PageSize, len: u64| match areas.last_mut() {
                Some(area) if area.page == page && area.start.as_u64() + area.len == virt => {
                    area.len += len;
                    area.weight += len / KIB_4;
                }
                _ => areas.push(Area { start: VirtAddr::new(virt), len, page, weight: len / KIB_4 }),
            };
            for gib in 0..self.gib / 2 {
                let virt = half + gib * GIB;
                if self.mixed && gib % 8 == 7 {
                    add(virt, PageSize::GIB_1, GIB);
                    continue;
                }
                layout.middle.push(virt);
                for chunk in 0..512 {
                    let virt = virt + chunk * MIB_2;
                    if self.mixed && mix(virt) & 1 == 0 {
                        add(virt, PageSize::MIB_2, MIB_2);
                    } else {
                        layout.lowest.push(virt);
                        add(virt, PageSize::KIB_4, MIB_2);
                    }
                }
            }
        }
        layout
    }
}

/// Where the page at `virt` lies: anywhere in `memory` bytes.
fn frame(virt: u64, memory: u64, page: u64) -> u64 {
    mix(virt) % (memory / page) * page
}

/// A number that looks like any other (SplitMix64's last step, from its published constants).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn append_data(bytes: &mut PageBuffer, len: u64) -> Result<()> {
    let mut random = Rng::with_seed(len);
    let mut block = vec![0; 1 << 20];
    for _ in 0..FRAMES >> 20 {
        random.fill(&mut block);
        bytes.append(&block)?;
    }
    block.fill(0);
    for _ in FRAMES >> 20..len >> 20 {
        bytes.append(&block)?;
    }
    Ok(())
}

/// Appends a table with these entries: index, of which the low nine bits count, and address.
fn append_table(bytes: &mut PageBuffer, entries: &[(u64, u64)]) -> Result<()> {
    let mut table = [[0; 8]; 512];
    for (index, address) in entries {
        table[(index & 511) as usize] = (address | RIGHTS).to_le_bytes();
    }
    bytes.append(table.as_flattened())?;
    Ok(())
}
