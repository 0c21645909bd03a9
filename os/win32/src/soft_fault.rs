//! What is behind entries of page tables that the processor refuses and Windows understands.
//!
//! Owns: the way from an entry to the page: prototypes, page files, the answer to the walk. Must not know: bits of entries, processes.
//! Keeps: a page is told only where an entry says so that Windows itself would use; an entry of a prototype is read through the kernel's
//! own tables without asking here again, so that nothing goes in circles. A number that may be another one is not used.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::sync::atomic::{AtomicU64, Ordering};

use memflow_core::{
    PageSize, PhysAddr, Reason, VirtAddr,
    error::Stop,
    memory::{PhysRead, PhysicalMemory},
    paging::{AddressSpace, PageFlags, SoftFault, SoftFaultAnswer, SoftFaults},
};

use crate::{
    bytes::Bytes,
    page_file::PageFiles,
    pte::{self, Meaning, PteForm},
};

/// The first build whose page file 2 is mostly a store of compressed pages.
const COMPRESSES: u32 = 10240;
/// Its number.
const STORE: u8 = 2;
/// The bit of an entry that is inverted, and of the number of a page in a page file.
const INVERTED: u64 = 1 << 45;
const INVERTED_PAGE: u64 = INVERTED >> 32;
/// Numbers of `WindowsSoftFaults::inverts`.
const UNKNOWN: u64 = 0;
const NEVER: u64 = 1;
const ALWAYS: u64 = 2;

/// What is behind an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behind {
    /// A page in memory. `file` when it lies in a page file that is at hand.
    Page { base: PhysAddr, flags: PageFlags, state: InMemory },
    /// Zeros when it is first used.
    DemandZero,
    /// Page of a page file that is not at hand. The page is `None` where its number may be one of two.
    PageFile { file: u8, page: Option<u64> },
    /// The store of compressed pages.
    Store { page: Option<u64> },
    /// The file that is mapped.
    File,
    /// Kept somewhere, in a way that is not known of this build.
    Elsewhere,
    /// The prototype cannot be read, or the region does not tell it.
    Unreadable,
    /// Nothing was ever there.
    Nothing,
}

/// What the regions of a process say of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InRegion {
    /// Its prototype lies there.
    Prototype(VirtAddr),
    /// No region with prototypes has it.
    None,
    /// Which region has it, or where its prototypes are, is not known.
    Unknown,
}

/// How a page is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InMemory {
    Valid,
    Transition,
    /// In a page file that is at hand.
    PageFile {
        file: u8,
        page: u64,
    },
}

/// The rules of Windows.
#[derive(Debug)]
pub(crate) struct WindowsSoftFaults {
    /// The kernel's tables.
    kernel: AddressSpace,
    /// The kernel's build; 0 until it is known.
    build: AtomicU64,
    files: PageFiles,
    /// Whether a bit of entries is inverted, as far as entries in transition told.
    inverts: AtomicU64,
}

impl WindowsSoftFaults {
    /// The rules, with the kernel's own tables and the page files that are at hand.
    pub(crate) fn new(kernel: AddressSpace, files: PageFiles) -> Self {
        Self { kernel, build: AtomicU64::new(0), files, inverts: AtomicU64::new(UNKNOWN) }
    }

    /// Tells the build, on which the form of entries depends.
    pub(crate) fn set_build(&self, build: u32) {
        self.build.store(build.into(), Ordering::Relaxed);
    }

    /// How this kernel writes entries.
    pub(crate) fn form(&self) -> PteForm {
        PteForm {
            wide: self.kernel.architecture().pointer_size == 8,
            size: self.kernel.architecture().entry_size.bytes(),
            build: u32::try_from(self.build.load(Ordering::Relaxed)).unwrap_or_default(),
        }
    }

    /// What is behind an entry. `table` is where others like it lie; `region` tells the prototype if only the region knows it.
    pub(crate) fn behind(
        &self,
        memory: &dyn PhysicalMemory,
        entry: u64,
        table: Option<PhysAddr>,
        region: &dyn Fn() -> InRegion,
    ) -> Behind {
        match self.form().meaning(entry) {
            Meaning::Prototype(at) => self.prototype(memory, at, table),
            Meaning::Nothing | Meaning::InRegion => match (region(), entry) {
                (InRegion::Prototype(at), _) => self.prototype(memory, at, table),
                (InRegion::None, 0) => Behind::Nothing,
                (InRegion::None | InRegion::Unknown, _) => Behind::Unreadable,
            },
            meaning => self.settled(memory, meaning, entry, table),
        }
    }

    /// What is behind the prototype at an address. `table` is a table of entries of the same kernel: beside a prototype may lie anything.
    pub(crate) fn prototype(&self, memory: &dyn PhysicalMemory, at: VirtAddr, table: Option<PhysAddr>) -> Behind {
        let form = self.form();
        let Some(entry) = self.read_prototype(memory, at) else { return Behind::Unreadable };
        if entry & pte::VALID != 0 {
            return Behind::Page { base: form.frame(entry), flags: pte::valid_flags(entry), state: InMemory::Valid };
        }
        match form.meaning(entry) {
            // The prototype of a file's page leads to a part of the file; entries of 32 bits scatter its address.
            Meaning::Prototype(_) | Meaning::InRegion => Behind::File,
            Meaning::PagedOut if form.size == 4 => Behind::File,
            meaning => self.settled(memory, meaning, entry, table),
        }
    }

    /// An entry in the kernel's pool, which may be in transition itself.
    fn read_prototype(&self, memory: &dyn PhysicalMemory, at: VirtAddr) -> Option<u64> {
        let form = self.form();
        let place = match self.kernel.translate(memory, at) {
            Ok(found) => found.phys,
            Err(Reason::NotMapped(Stop { level: 1, entry, .. })) => match form.meaning(entry) {
                Meaning::Page { base, .. } => base.wrapping_add(at.page_offset(PageSize::KIB_4)),
                _ => return None,
            },
            Err(_) => return None,
        };
        let mut bytes = [0; 8];
        let buf = bytes.get_mut(..usize::try_from(form.size).ok()?)?;
        memory.read_batch(&mut [PhysRead::new(place, buf)]).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// What needs no other entry.
    fn settled(&self, memory: &dyn PhysicalMemory, meaning: Meaning, entry: u64, table: Option<PhysAddr>) -> Behind {
        match meaning {
            Meaning::Page { base, protection } => {
                self.learn(entry);
                Behind::Page { base, flags: pte::flags(protection), state: InMemory::Transition }
            }
            Meaning::PageFile { file, page, inverted } => {
                let page = if inverted { self.page(memory, file, page, table) } else { Some(page) };
                let store = file == STORE && self.form().build >= COMPRESSES;
                let found = page.and_then(|page| Some((page, self.files.place(file, page)?)));
                match found {
                    Some((page, base)) => {
                        let flags = pte::flags(entry >> 5 & 0x1f);
                        Behind::Page { base, flags, state: InMemory::PageFile { file, page } }
                    }
                    None if store => Behind::Store { page },
                    None => Behind::PageFile { file, page },
                }
            }
            Meaning::DemandZero => Behind::DemandZero,
            Meaning::PagedOut => Behind::Elsewhere,
            Meaning::Nothing | Meaning::Prototype(_) | Meaning::InRegion => Behind::Nothing,
        }
    }

    /// The number of a page in a page file, of which a bit may be inverted: by what other entries tell, or because only one of both
    /// numbers is in the file.
    fn page(&self, memory: &dyn PhysicalMemory, file: u8, stored: u64, table: Option<PhysAddr>) -> Option<u64> {
        if self.inverts.load(Ordering::Relaxed) == UNKNOWN
            && let Some(table) = table
        {
            let mut bytes = [0; 0x1000];
            if memory.read_batch(&mut [PhysRead::new(table, &mut bytes)]).is_ok() {
                bytes.as_chunks::<8>().0.iter().for_each(|entry| self.learn(Bytes(entry).u64(0).unwrap_or_default()));
            }
        }
        let other = stored ^ INVERTED_PAGE;
        match self.inverts.load(Ordering::Relaxed) {
            NEVER => Some(stored),
            ALWAYS => Some(other),
            _ => match (self.files.place(file, stored), self.files.place(file, other)) {
                (Some(_), None) => Some(stored),
                (None, Some(_)) => Some(other),
                _ => None,
            },
        }
    }

    /// Notes what an entry in transition tells of the bit that is inverted.
    fn learn(&self, entry: u64) {
        let told = match self.form().inverted_bits(entry) {
            Some(0) => NEVER,
            Some(INVERTED) => ALWAYS,
            _ => return,
        };
        // What was learnt first stays.
        let _ = self.inverts.compare_exchange(UNKNOWN, told, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The answer to a walk that stopped.
    pub(crate) fn answer(
        &self,
        memory: &dyn PhysicalMemory,
        fault: &SoftFault,
        region: &dyn Fn() -> InRegion,
    ) -> SoftFaultAnswer {
        // Large pages are never anything but valid.
        if fault.page != PageSize::KIB_4 {
            return SoftFaultAnswer::NotMapped;
        }
        match self.behind(memory, fault.stop.entry, Some(fault.stop.table), region) {
            Behind::Page { base, flags, .. } => SoftFaultAnswer::Page { base, flags },
            Behind::DemandZero | Behind::Nothing => SoftFaultAnswer::NotMapped,
            _ => SoftFaultAnswer::PagedOut,
        }
    }
}

impl SoftFaults for WindowsSoftFaults {
    fn resolve(&self, memory: &dyn PhysicalMemory, faults: &mut [SoftFault]) {
        for fault in faults {
            fault.answer = self.answer(memory, fault, &|| InRegion::None);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use memflow_core::{
        MemoryViewExt,
        memory::{BufferMemory, RunMap, SourceConfig, TargetFacts},
        paging::x86,
        testkit::{
            MachineBuilder, PagingMode,
            entry_bits::{PRESENT, USER, WRITABLE},
        },
        view::SpaceView,
    };

    use super::*;
    use crate::page_file::PageFile;

    const TRANSITION: u64 = 1 << 11;
    const PROTOTYPE: u64 = 1 << 10;

    #[test]
    fn pages_in_transition_and_behind_prototypes_are_read() {
        let mut builder = MachineBuilder::new(PagingMode::X64, 1 << 20).unwrap();
        let page = PageSize::KIB_4;
        let (data, prototypes, other) = (builder.frame().unwrap(), builder.frame().unwrap(), builder.frame().unwrap());
        builder.write(data, b"transition").unwrap();
        builder.write(other, b"prototype").unwrap();
        let at = VirtAddr::new(0xffff_e000_0000_0000);
        builder.map(at, prototypes, page, PRESENT | WRITABLE).unwrap();
        builder.write(prototypes, &(other.as_u64() | PRESENT | USER).to_le_bytes()).unwrap();
        builder.write(prototypes.wrapping_add(8), &(data.as_u64() | TRANSITION | 1 << 5).to_le_bytes()).unwrap();
        let entries = [
            data.as_u64() | TRANSITION | 4 << 5,
            at.as_u64() << 16 | PROTOTYPE,
            at.wrapping_add(8).as_u64() << 16 | PROTOTYPE,
            0x5_0000_0080,
            u64::MAX << 32 | PROTOTYPE,
            at.wrapping_add(0x10_0000).as_u64() << 16 | PROTOTYPE,
        ];
        for (index, entry) in (0u64..).zip(entries) {
            let mapped = builder.map(VirtAddr::new(0x10_0000 + index * 0x1000), data, page, PRESENT | USER).unwrap();
            builder.set_entry(mapped.entries.last().unwrap().at, entry).unwrap();
        }
        let machine = builder.build().unwrap();
        let rules = std::sync::Arc::new(WindowsSoftFaults::new(machine.space.clone(), PageFiles::default()));
        let view = SpaceView::new(machine.memory.clone(), machine.space.clone().with_soft_faults(rules));
        let text = |index: u64| view.read_utf8_lossy(VirtAddr::new(0x10_0000 + index * 0x1000), 64);
        assert_eq!(text(0).unwrap(), "transition");
        assert_eq!(text(1).unwrap(), "prototype");
        assert_eq!(text(2).unwrap(), "transition");
        for paged_out in 3..6 {
            let error = text(paged_out).unwrap_err();
            assert!(error.to_string().contains("paged out"), "{paged_out}: {error}");
        }
    }

    fn flat(len: u64) -> std::sync::Arc<dyn PhysicalMemory> {
        let config = SourceConfig { name: "flat".into(), runs: RunMap::flat(len), facts: TargetFacts::default() };
        std::sync::Arc::new(BufferMemory::new(config, vec![0; len as usize]).unwrap())
    }

    #[test]
    fn page_of_a_page_file_is_told_only_when_its_number_is_certain() {
        let rules = |pages: u64| {
            let files = PageFiles::new(&[PageFile { number: 0, bytes: flat(pages << 12) }]);
            let rules = WindowsSoftFaults::new(AddressSpace::new(&x86::X64, 0x1000), files);
            rules.set_build(19041);
            rules
        };
        let memory = flat(0x1000);
        let behind =
            |rules: &WindowsSoftFaults, entry: u64| match rules.behind(&*memory, entry, None, &|| InRegion::None) {
                Behind::Page { state: InMemory::PageFile { page, .. }, .. } => Ok(page),
                other => Err(other),
            };
        let stored = 0x2003 << 32 | 4 << 5;
        // The file is too short for one of both numbers.
        assert_eq!(behind(&rules(0x100), stored), Ok(3));
        let long = rules(0x2100);
        assert_eq!(behind(&long, stored), Err(Behind::PageFile { file: 0, page: None }));
        assert_eq!(behind(&long, stored | 1 << 4), Ok(0x2003));
        long.learn(0x1000 | TRANSITION | INVERTED);
        assert_eq!(behind(&long, stored), Ok(3));
        let never = rules(0x2100);
        never.learn(0x1000 | TRANSITION);
        assert_eq!(behind(&never, stored), Ok(0x2003));
        assert_eq!(behind(&never, 0x7 << 32 | 2 << 12), Err(Behind::Store { page: Some(7) }));
    }
}
