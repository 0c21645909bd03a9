//! The machine while it is being built: address spaces, what is mapped in them, and writing by virtual address.
//!
//! Owns: spaces and their roots, the share of all in the kernel's half. Must not know: structures of Windows, but for page tables.
//! Keeps: bytes written to an address are in the frame that belongs to it, whatever its table entry says of it.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::{
    Error,
    offsets::Offsets,
    physical::{PAGE, Physical},
    pool::Pools,
    tables::{FRAME, LARGE, NO_EXECUTE, PRESENT, Paging, Rights},
    truth::Process,
};

/// An address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct SpaceId(usize);

/// The space of the process System, whose kernel half all others share.
pub(crate) const KERNEL: SpaceId = SpaceId(0);

/// The top table of a space, and which frame holds the bytes of each page.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) root: u64,
    /// The table for user mode, where KVA shadowing is on.
    pub(crate) shadow: Option<u64>,
    /// It is no process's: what processes of a session share in the kernel's half, apart from all others.
    of_session: bool,
    frames: BTreeMap<u64, u64>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) memory: Physical,
    pub(crate) rng: Rng,
    pub(crate) paging: Paging,
    pub(crate) offsets: Offsets,
    /// Index of the self-reference in tables of four levels.
    pub(crate) self_reference: u64,
    /// What hides the types of objects, on builds that do.
    pub(crate) cookie: Option<u8>,
    pub(crate) pools: Pools,
    /// Processes and threads have something in the fields that no reader knows.
    pub(crate) cluttered: bool,
    spaces: Vec<Space>,
    /// Room for tables of 32 bytes: PAE keeps many in a page.
    small_roots: Vec<u64>,
}

impl Machine {
    /// A machine whose first space has its root at the frame given, or anywhere.
    pub(crate) fn new(
        memory: Physical,
        mut rng: Rng,
        paging: Paging,
        offsets: Offsets,
        self_reference: u64,
        pools: Pools,
        root: Option<u64>,
    ) -> Result<Self, Error> {
        let cookie = offsets.get("rva:ObHeaderCookie").map(|_| rng.u8(1..));
        let mut machine = Self {
            memory,
            cookie,
            rng,
            paging,
            offsets,
            self_reference,
            pools,
            cluttered: false,
            spaces: Vec::new(),
            small_roots: Vec::new(),
        };
        let root = match (paging, root) {
            // Its four directories follow the table of the process System.
            (Paging::Pae, _) => machine.memory.run(5, 1)?,
            (_, Some(frame)) => machine.memory.exactly(frame)?,
            (_, None) => machine.low_frame()?,
        };
        machine.spaces.push(Space { root: root * PAGE, shadow: None, of_session: false, frames: BTreeMap::new() });
        if paging == Paging::Pae {
            for at in 0..4 {
                paging.put(&mut machine.memory, root * PAGE + at * 8, ((root + 1 + at) * PAGE) | PRESENT);
            }
        }
        Ok(machine)
    }

    /// Bytes in a pointer.
    pub(crate) fn pointer(&self) -> u64 {
        if self.offsets.wide { 8 } else { 4 }
    }

    /// A frame whose address fits into 32 bits, as roots do.
    fn low_frame(&mut self) -> Result<u64, Error> {
        self.memory.frame_below(&mut self.rng, 4 << 30)
    }

    /// Another address space.
    pub(crate) fn space(&mut self, shadow: bool) -> Result<SpaceId, Error> {
        let root = if self.paging == Paging::Pae {
            if self.small_roots.is_empty() {
                let page = self.low_frame()? * PAGE;
                self.small_roots = (1..128).rev().map(|at| page + at * 32).collect();
            }
            let root = self.small_roots.pop().unwrap_or_default();
            for at in 0..4 {
                let directory = self.memory.frame(&mut self.rng)?;
                self.paging.put(&mut self.memory, root + at * 8, (directory * PAGE) | PRESENT);
            }
            root
        } else {
            self.low_frame()? * PAGE
        };
        let shadow = if shadow { Some(self.low_frame()? * PAGE) } else { None };
        self.spaces.push(Space { root, shadow, of_session: false, frames: BTreeMap::new() });
        Ok(SpaceId(self.spaces.len() - 1))
    }

    /// What the processes of a session share: pages in the kernel's half that are theirs alone.
    pub(crate) fn session_space(&mut self) -> Result<SpaceId, Error> {
        let root = self.low_frame()? * PAGE;
        self.spaces.push(Space { root, shadow: None, of_session: true, frames: BTreeMap::new() });
        Ok(SpaceId(self.spaces.len() - 1))
    }

    /// What is known of a space.
    pub(crate) fn of(&self, space: SpaceId) -> &Space {
        &self.spaces[space.0]
    }

    /// A new frame at `address`.
    pub(crate) fn map(&mut self, space: SpaceId, address: u64, rights: Rights) -> Result<u64, Error> {
        let frame = self.memory.frame(&mut self.rng)?;
        self.map_frame(space, address, frame, rights)?;
        Ok(frame)
    }

    /// New frames from `address` on, until `bytes` are mapped; pages that are mapped already stay.
    pub(crate) fn map_all(&mut self, space: SpaceId, address: u64, bytes: u64, rights: Rights) -> Result<(), Error> {
        let mut page = address & !(PAGE - 1);
        while page < address + bytes {
            if self.frame_at(space, page).is_none() {
                self.map(space, page, rights)?;
            }
            page += PAGE;
        }
        Ok(())
    }

    /// A frame at `address`.
    pub(crate) fn map_frame(&mut self, space: SpaceId, address: u64, frame: u64, rights: Rights) -> Result<(), Error> {
        let entry = self.paging.leaf(frame, rights);
        self.set_entry(space, address, Some(frame), entry)
    }

    /// An entry as it is given, and the frame that holds the page's bytes, if one does.
    pub(crate) fn set_entry(
        &mut self,
        space: SpaceId,
        address: u64,
        frame: Option<u64>,
        entry: u64,
    ) -> Result<(), Error> {
        if self.frame_at(space, address).is_some() {
            return Err(Error::Overlap { address });
        }
        let root = self.spaces[space.0].root;
        self.paging.set(&mut self.memory, &mut self.rng, root, address, PAGE, entry)?;
        if let Some(frame) = frame {
            self.spaces[space.0].frames.insert(address / PAGE, frame);
        }
        Ok(())
    }

    /// A page of `size` bytes (2 MiB, 4 MiB, 1 GiB) whose first frame is given.
    pub(crate) fn map_large(
        &mut self,
        space: SpaceId,
        address: u64,
        size: u64,
        frame: u64,
        rights: Rights,
    ) -> Result<(), Error> {
        let entry = self.paging.leaf(frame, rights) | LARGE;
        let root = self.spaces[space.0].root;
        self.paging.set(&mut self.memory, &mut self.rng, root, address, size, entry)?;
        let pages = (address / PAGE..).zip(frame..frame + size / PAGE);
        self.spaces[space.0].frames.extend(pages);
        Ok(())
    }

    /// Tables down to the last level for `address`, without a page.
    pub(crate) fn prepare(&mut self, address: u64) -> Result<(), Error> {
        let root = self.spaces[KERNEL.0].root;
        self.paging.prepare(&mut self.memory, &mut self.rng, root, address)
    }

    /// The frame with the bytes of a page.
    pub(crate) fn frame_at(&self, space: SpaceId, address: u64) -> Option<u64> {
        let page = address / PAGE;
        let of_all = || self.spaces[KERNEL.0].frames.get(&page).filter(|_| self.paging.is_kernel(address));
        self.spaces[space.0].frames.get(&page).or_else(of_all).copied()
    }

    /// The physical address of the byte at `address`, wherever its page is now.
    pub(crate) fn physical(&self, space: SpaceId, address: u64) -> Option<u64> {
        Some(self.frame_at(space, address)? * PAGE + address % PAGE)
    }

    /// Writes bytes at an address.
    pub(crate) fn write(&mut self, space: SpaceId, mut address: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let here = ((PAGE - address % PAGE) as usize).min(bytes.len());
            let physical = self.physical(space, address).ok_or(Error::Unmapped { address })?;
            self.memory.write(physical, &bytes[..here]);
            bytes = &bytes[here..];
            address += here as u64;
        }
        Ok(())
    }

    /// Writes the low `bytes` bytes of a number.
    pub(crate) fn put(&mut self, space: SpaceId, address: u64, bytes: u64, value: u64) -> Result<(), Error> {
        self.write(space, address, &value.to_le_bytes()[..bytes as usize])
    }

    /// Writes a pointer, or a number as wide as one, into the kernel's memory.
    pub(crate) fn put_pointer(&mut self, address: u64, value: u64) -> Result<(), Error> {
        self.put(KERNEL, address, self.pointer(), value)
    }

    /// Writes a number into a field of a structure of the kernel, if builds like this one have the field.
    pub(crate) fn field(&mut self, at: u64, name: &str, bytes: u64, value: u64) -> Result<(), Error> {
        match self.offsets.get(name) {
            Some(offset) => self.put(KERNEL, at + offset, bytes, value),
            None => Ok(()),
        }
    }

    /// Writes a pointer into a field of a structure of the kernel, if builds like this one have the field.
    pub(crate) fn pointer_field(&mut self, at: u64, name: &str, value: u64) -> Result<(), Error> {
        self.field(at, name, self.pointer(), value)
    }

    /// Links a head and entries to a ring: each holds the addresses of the next and of the one before. Pointers have `width` bytes.
    pub(crate) fn link(&mut self, space: SpaceId, width: u64, head: u64, entries: &[u64]) -> Result<(), Error> {
        let ring: Vec<u64> = std::iter::once(head).chain(entries.iter().copied()).collect();
        for (at, entry) in ring.iter().enumerate() {
            self.put(space, *entry, width, ring[(at + 1) % ring.len()])?;
            self.put(space, *entry + width, width, ring[(at + ring.len() - 1) % ring.len()])?;
        }
        Ok(())
    }

    /// A counted string in UTF-16 at `at`, whose characters lie at `buffer`; pointers have `width` bytes.
    pub(crate) fn string(&mut self, space: SpaceId, width: u64, at: u64, buffer: u64, text: &str) -> Result<(), Error> {
        let bytes = utf16(text);
        self.put(space, at, 2, bytes.len() as u64)?;
        self.put(space, at + 2, 2, bytes.len() as u64 + 2)?;
        self.put(space, at + width, width, buffer)?;
        self.write(space, buffer, &bytes)
    }

    /// Gives all spaces the kernel's half, and each the entries that refer to itself. `windows` are pages that shadows show.
    pub(crate) fn share_kernel(&mut self, windows: &[(u64, Rights)]) -> Result<(), Error> {
        let roots: Vec<(u64, Option<u64>)> =
            self.spaces.iter().filter(|space| !space.of_session).map(|space| (space.root, space.shadow)).collect();
        let paging = self.paging;
        for (root, shadow) in roots {
            match paging {
                Paging::Four => {
                    self.copy_entries(roots_of(&self.spaces), root, 256..512);
                    let own = paging.table(root / PAGE, false) | NO_EXECUTE;
                    paging.put(&mut self.memory, root + self.self_reference * 8, own);
                }
                Paging::Pae => {
                    let directories: Vec<u64> = (0..4).map(|at| self.memory.number(root + at * 8, 8) & FRAME).collect();
                    let system = self.spaces[KERNEL.0].root;
                    for at in 2..4 {
                        let from = self.memory.number(system + at * 8, 8) & FRAME;
                        self.copy_entries(from, directories[at as usize], 0..512);
                    }
                    for (at, directory) in (0..).zip(&directories) {
                        let own = paging.table(directory / PAGE, false);
                        paging.put(&mut self.memory, directories[3] + at * 8, own);
                    }
                }
                Paging::Two => {
                    self.copy_entries(roots_of(&self.spaces), root, 512..1024);
                    paging.put(&mut self.memory, root + 0x300 * 4, paging.table(root / PAGE, false));
                }
            }
            if let Some(shadow) = shadow {
                // System has a shadow for its threads that never run in user mode: nothing of user mode is in it.
                let user = if root == self.spaces[KERNEL.0].root { 0..0 } else { 0..256 };
                self.copy_entries(root, shadow, user.clone());
                for at in user {
                    // The kernel's own table keeps the processor from running code of the process.
                    let entry = self.memory.number(root + at * 8, 8);
                    if entry != 0 {
                        paging.put(&mut self.memory, root + at * 8, entry | NO_EXECUTE);
                    }
                }
                for (address, rights) in windows {
                    let frame = self.frame_at(KERNEL, *address).ok_or(Error::Unmapped { address: *address })?;
                    let entry = paging.leaf(frame, *rights);
                    paging.set(&mut self.memory, &mut self.rng, shadow, *address, PAGE, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Gives processes what their sessions share, once all have the kernel's half: `spaces` are those of sessions. Four levels only.
    pub(crate) fn share_sessions(&mut self, spaces: &BTreeMap<u32, SpaceId>, processes: &[Process]) {
        for (session, space) in spaces {
            let from = self.spaces[space.0].root;
            for process in processes.iter().filter(|process| process.session == Some(*session)) {
                self.copy_entries(from, process.dtb & FRAME, 256..512);
            }
            for entry in 256..512 {
                self.paging.put(&mut self.memory, from + entry * 8, 0);
            }
        }
    }

    /// A table of user mode for the process System: nothing of user mode, and the windows that all shadows have.
    pub(crate) fn give_shadow(&mut self, space: SpaceId) -> Result<u64, Error> {
        let shadow = self.low_frame()? * PAGE;
        self.spaces[space.0].shadow = Some(shadow);
        Ok(shadow)
    }

    fn copy_entries(&mut self, from: u64, to: u64, entries: std::ops::Range<u64>) {
        let width = self.paging.entry();
        if from == to {
            return;
        }
        for at in entries {
            let entry = self.memory.number(from + at * width, width as usize);
            if entry != 0 {
                self.paging.put(&mut self.memory, to + at * width, entry);
            }
        }
    }
}

fn roots_of(spaces: &[Space]) -> u64 {
    spaces[KERNEL.0].root
}

/// The bytes of a text in UTF-16.
pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
