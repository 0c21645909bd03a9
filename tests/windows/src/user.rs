//! The half of an address space that belongs to a process.
//!
//! Owns: where regions lie, the state of each page, and the plans of VADs. Must not know: what a region is for.
//! Keeps: every page that was ever made is in the list of pages, with the state that its entry says.

use crate::{
    Error,
    description::{PrivatePage, PrivateRegion},
    machine::{Machine, SpaceId},
    physical::PAGE,
    section::SectionObject,
    soft::Soft,
    tables::Rights,
    truth::{PageState, Through, UserPage, VadKind},
    vad::VadPlan,
    windows::PageFiles,
};

/// Regions begin at multiples of this.
const GRANULARITY: u64 = 0x1_0000;

/// Bytes that are to lie at an address that is known before they are complete.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    /// Room for `size` bytes; its address.
    pub(crate) fn take(&mut self, size: u64) -> u64 {
        let at = self.bytes.len().next_multiple_of(16);
        self.bytes.resize(at + size as usize, 0);
        self.base + at as u64
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = (address - self.base) as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put(&mut self, address: u64, width: u64, value: u64) {
        self.write(address, &value.to_le_bytes()[..width as usize]);
    }

    /// A counted string at `at`, with its characters behind what is there.
    pub(crate) fn string(&mut self, at: u64, width: u64, text: &str) {
        let bytes = crate::machine::utf16(text);
        let buffer = self.take(bytes.len() as u64 + 2);
        self.write(buffer, &bytes);
        self.put(at, 2, bytes.len() as u64);
        self.put(at + 2, 2, bytes.len() as u64 + 2);
        self.put(at + width, width, buffer);
    }

    /// Links a head and entries to a ring.
    pub(crate) fn link(&mut self, width: u64, head: u64, entries: &[u64]) {
        let ring: Vec<u64> = std::iter::once(head).chain(entries.iter().copied()).collect();
        for (at, entry) in ring.iter().enumerate() {
            self.put(*entry, width, ring[(at + 1) % ring.len()]);
            self.put(*entry + width, width, ring[(at + ring.len() - 1) % ring.len()]);
        }
    }
}

/// The half of a process.
#[derive(Debug)]
pub(crate) struct UserSpace {
    pub(crate) id: SpaceId,
    pub(crate) vads: Vec<VadPlan>,
    pub(crate) pages: Vec<UserPage>,
    /// Where the next region goes.
    next: u64,
    soft: Soft,
    trimmed: u8,
    next_in_file: u32,
}

impl UserSpace {
    pub(crate) fn new(id: SpaceId, first: u64, soft: Soft, trimmed: u8, next_in_file: u32) -> Self {
        Self { id, vads: Vec::new(), pages: Vec::new(), next: first, soft, trimmed, next_in_file }
    }

    /// An address for a region of up to `bytes` bytes.
    pub(crate) fn address(&mut self, machine: &mut Machine, bytes: u64) -> u64 {
        let at = self.next + machine.rng.u64(0..4) * GRANULARITY;
        self.next = (at + bytes).next_multiple_of(GRANULARITY);
        at
    }

    /// An address that is a multiple of a large page's size.
    pub(crate) fn large_address(&mut self, size: u64, count: u64) -> u64 {
        let at = self.next.next_multiple_of(size);
        self.next = at + size * count;
        at
    }

    /// A blob at an address for up to `bytes` bytes.
    pub(crate) fn blob(&mut self, machine: &mut Machine, bytes: u64) -> Blob {
        Blob { base: self.address(machine, bytes), bytes: Vec::new() }
    }

    fn chance(&self, machine: &mut Machine) -> bool {
        machine.rng.u8(0..100) < self.trimmed
    }

    fn plan(
        &mut self,
        start: u64,
        bytes: u64,
        kind: VadKind,
        vad_type: u8,
        protection: u8,
        section: Option<&SectionObject>,
    ) {
        let section = section.map(|s| (s.subsection, s.first_entry, s.last_entry, s.file.clone()));
        let last = start + bytes.next_multiple_of(PAGE) - 1;
        self.vads.push(VadPlan { start, last, kind, vad_type, protection, section });
    }

    /// A region of private memory that holds `bytes`; some pages are in transition if the process is trimmed.
    pub(crate) fn private(
        &mut self,
        machine: &mut Machine,
        start: u64,
        bytes: &[u8],
        protection: u8,
    ) -> Result<(), Error> {
        self.plan(start, bytes.len().max(1) as u64, VadKind::Private, 0, protection, None);
        for (address, bytes) in (start..).step_by(PAGE as usize).zip(bytes.chunks(PAGE as usize)) {
            let state = if self.chance(machine) { PrivatePage::Transition } else { PrivatePage::Valid };
            let frame = self.private_page(machine, address, state, protection)?;
            if let Some(frame) = frame {
                machine.memory.write(frame * PAGE, bytes);
            }
        }
        Ok(())
    }

    /// A region as a description says it, with bytes that are random.
    pub(crate) fn described(
        &mut self,
        machine: &mut Machine,
        files: &mut PageFiles,
        region: &PrivateRegion,
    ) -> Result<(), Error> {
        let size = region.pages.len() as u64 * PAGE;
        let start = self.address(machine, size);
        self.plan(start, size, VadKind::Private, 0, region.protection, None);
        for (address, state) in (start..).step_by(PAGE as usize).zip(&region.pages) {
            let mut bytes = vec![0; 64];
            machine.rng.fill(&mut bytes);
            match state {
                PrivatePage::PageFile | PrivatePage::Compressed => {
                    let file = if *state == PrivatePage::PageFile { 0 } else { 2 };
                    let page = self.next_in_file;
                    self.next_in_file += 1;
                    // What the store of compressed pages holds is not kept by page.
                    if file == 0 {
                        files.put(file, page, &bytes);
                    }
                    let entry = self.soft.page_file(file, page, region.protection);
                    let state = PageState::PageFile { file, page };
                    self.entry(machine, address, None, entry, state, Through::Entry)?;
                }
                _ => {
                    if let Some(frame) = self.private_page(machine, address, *state, region.protection)? {
                        machine.memory.write(frame * PAGE, &bytes);
                    }
                }
            }
        }
        Ok(())
    }

    fn private_page(
        &mut self,
        machine: &mut Machine,
        address: u64,
        state: PrivatePage,
        protection: u8,
    ) -> Result<Option<u64>, Error> {
        let rights = rights(protection);
        match state {
            PrivatePage::Valid => {
                let frame = machine.memory.frame(&mut machine.rng)?;
                let entry = machine.paging.leaf(frame, rights);
                self.entry(machine, address, Some(frame), entry, PageState::Valid, Through::Entry)?;
                Ok(Some(frame))
            }
            PrivatePage::Transition => {
                let frame = machine.memory.frame(&mut machine.rng)?;
                let entry = self.soft.transition(frame, protection);
                self.entry(machine, address, Some(frame), entry, PageState::Transition, Through::Entry)?;
                Ok(Some(frame))
            }
            PrivatePage::DemandZero => {
                let entry = self.soft.demand_zero(protection);
                self.entry(machine, address, None, entry, PageState::DemandZero, Through::Entry)?;
                Ok(None)
            }
            // Reserved, or committed as a whole by the VAD: there is nothing to say of the page.
            _ => Ok(None),
        }
    }

    fn entry(
        &mut self,
        machine: &mut Machine,
        address: u64,
        frame: Option<u64>,
        entry: u64,
        state: PageState,
        through: Through,
    ) -> Result<(), Error> {
        machine.set_entry(self.id, address, frame, entry)?;
        self.pages.push(UserPage { address, size: PAGE, state, through, physical: frame.map(|frame| frame * PAGE) });
        Ok(())
    }

    /// A page that other processes and the kernel share.
    pub(crate) fn shared_page(&mut self, machine: &mut Machine, address: u64, frame: u64) -> Result<(), Error> {
        self.plan(address, PAGE, VadKind::Private, 0, 1, None);
        let entry = machine.paging.leaf(frame, rights(1));
        self.entry(machine, address, Some(frame), entry, PageState::Valid, Through::Entry)
    }

    /// A section at `start`. `rights_of` says what each page may be used for; `through` how each entry refers to it, or nothing to let it be
    /// drawn.
    pub(crate) fn section(
        &mut self,
        machine: &mut Machine,
        start: u64,
        section: &SectionObject,
        image: bool,
        through: Option<&[Through]>,
        protections: &[u8],
    ) -> Result<(), Error> {
        let (kind, vad_type, protection) = if image {
            (VadKind::Image, 2, 7)
        } else {
            (VadKind::Mapped, 0, protections.first().copied().unwrap_or(1))
        };
        self.plan(start, section.pages.len() as u64 * PAGE, kind, vad_type, protection, Some(section));
        for (index, page) in section.pages.iter().enumerate() {
            let address = start + index as u64 * PAGE;
            let protection = protections.get(index).copied().unwrap_or(1);
            let mut through = match through {
                Some(through) => through[index],
                None if page.state != PageState::Valid || self.chance(machine) => {
                    [Through::Prototype, Through::Vad, Through::Nothing][machine.rng.usize(0..3)]
                }
                None => Through::Entry,
            };
            let mut entry = match through {
                Through::Entry => machine.paging.leaf(page.frame.unwrap_or(0), rights(protection)),
                Through::Prototype => self.soft.prototype(page.entry, protection).unwrap_or(0),
                Through::Vad => self.soft.by_vad(protection),
                Through::Nothing => 0,
            };
            if through == Through::Prototype && entry == 0 {
                (through, entry) = (Through::Vad, self.soft.by_vad(protection));
            }
            if through != Through::Nothing {
                machine.set_entry(self.id, address, page.frame, entry)?;
            }
            let physical = page.frame.map(|frame| frame * PAGE);
            self.pages.push(UserPage { address, size: PAGE, state: page.state, through, physical });
        }
        Ok(())
    }

    /// Large pages in one region of private memory.
    pub(crate) fn large(&mut self, machine: &mut Machine, size: u64, count: u64) -> Result<(), Error> {
        let start = self.large_address(size, count);
        self.plan(start, size * count, VadKind::Private, 5, 4, None);
        for at in 0..count {
            let frame = machine.memory.run(size / PAGE, size / PAGE)?;
            machine.map_large(self.id, start + at * size, size, frame, rights(4))?;
            // Something at its begin, in its middle and at its end.
            for place in [0, size / 2, size - 64] {
                let mut bytes = [0; 64];
                machine.rng.fill(&mut bytes);
                machine.memory.write(frame * PAGE + place, &bytes);
            }
            self.pages.push(UserPage {
                address: start + at * size,
                size,
                state: PageState::Valid,
                through: Through::Entry,
                physical: Some(frame * PAGE),
            });
        }
        Ok(())
    }
}

/// What a page with a protection may be used for, once it is present: a page that is copied when written is not writable.
pub(crate) fn rights(protection: u8) -> Rights {
    Rights { user: true, write: matches!(protection & 7, 4 | 6), execute: protection & 2 != 0 }
}
