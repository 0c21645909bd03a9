//! Memory with page tables in it, and where pages are mapped.
//!
//! Owns: [`Image`], whatever it was made from. Must not know: what is measured on it.
//! Keeps: areas hold only addresses that are mapped, with their bytes in the first region of the direct map.

use std::sync::Arc;

use memflow_core::{
    PageSize, PhysAddr, PhysRange, PhysicalMemory, VirtAddr, memory::DirectMap, paging::AddressSpace, view::SpaceView,
};

/// Consecutive virtual memory, mapped throughout with pages of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    /// The first address.
    pub start: VirtAddr,
    /// Length in bytes.
    pub len: u64,
    /// The size of its pages.
    pub page: PageSize,
    /// How often an address is taken from here, compared with other areas.
    pub weight: u64,
}

/// Frozen memory, and one address space in it.
#[derive(Clone)]
pub struct Image {
    /// Its name in reports: size, levels, pages.
    pub name: String,
    /// The memory. It has a direct map.
    pub memory: Arc<dyn PhysicalMemory>,
    /// The address space.
    pub space: AddressSpace,
    /// What is mapped in the lower half, ascending.
    pub user: Vec<Area>,
    /// What is mapped in the upper half, ascending.
    pub kernel: Vec<Area>,
    /// How many addresses have to be visited before caches have forgotten the first.
    pub working_set: usize,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}, {:?}, {} areas)", self.name, self.space, self.user.len() + self.kernel.len())
    }
}

impl Image {
    /// The address space as a view.
    pub fn view(&self) -> SpaceView {
        SpaceView::new(self.memory.clone(), self.space.clone())
    }

    /// True when its tables are larger than caches.
    pub fn exceeds_caches(&self) -> bool {
        self.working_set >= 1 << 20
    }

    /// The same tables in memory that is had in another way.
    #[must_use]
    pub fn with_memory(&self, memory: Arc<dyn PhysicalMemory>) -> Self {
        Self { memory, ..self.clone() }
    }

    /// How many pages are mapped: a scan of the tables by slices, with nothing reported.
    pub fn count_pages(&self) -> Option<u64> {
        fn below(map: &DirectMap, table: u64, shift: u8) -> Option<u64> {
            let bytes = map.slice(PhysRange::new(PhysAddr::new(table), 4096)?)?;
            let mut pages = 0;
            for entry in bytes.as_chunks().0 {
                let entry = u64::from_le_bytes(*entry);
                if entry & 1 != 0 {
                    let is_page = shift == 12 || (shift <= 30 && entry & 1 << 7 != 0);
                    pages += if is_page { 1 } else { below(map, entry & 0x000f_ffff_ffff_f000, shift - 9)? };
                }
            }
            Some(pages)
        }
        below(self.memory.direct_map()?, self.space.root().as_u64(), self.space.architecture().levels.first()?.shift)
    }

    /// The longest consecutive virtual memory of the upper half, pages of any size.
    pub fn longest(&self) -> (VirtAddr, u64) {
        let mut best = (VirtAddr::new(0), 0);
        let mut open = best;
        for area in &self.kernel {
            if open.0.checked_add(open.1) == Some(area.start) {
                open.1 += area.len;
            } else {
                open = (area.start, area.len);
            }
            if open.1 > best.1 {
                best = open;
            }
        }
        best
    }
}
