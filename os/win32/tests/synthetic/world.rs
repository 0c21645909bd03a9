//! A Windows made by hand: page tables, a kernel's image with exports, and whatever is put into its memory.
//!
//! Owns: [`World`]. Must not know: the layer under test; formats are written down here once more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use memflow_core::{
    PageSize, PhysAddr, PhysicalMemory, VirtAddr,
    testkit::{
        MachineBuilder, PagingMode,
        entry_bits::{PRESENT, USER, WRITABLE},
    },
};

const PAGE: u64 = 0x1000;
/// Places in the kernel's image.
const CODE: u64 = 0x1000;
const DATA: u64 = 0x4000;
const SYMBOLS: u64 = 0x5000;
const EXPORTS: u64 = 0x6000;
const SIZE: u64 = 0x1_0000;

/// Memory that is filled by virtual address.
pub(crate) struct World {
    pub(crate) builder: MachineBuilder,
    pub(crate) mode: PagingMode,
    pub(crate) base: u64,
    pages: HashMap<u64, PhysAddr>,
    exports: BTreeMap<String, u64>,
    data_end: u64,
}

impl World {
    /// A kernel at `base`, with headers and a CodeView record, and nothing else.
    pub(crate) fn new(mode: PagingMode, base: u64) -> Self {
        let builder = MachineBuilder::new(mode, 8 << 20).unwrap();
        let mut world =
            Self { builder, mode, base, pages: HashMap::new(), exports: BTreeMap::new(), data_end: base + DATA };
        world.headers();
        world
    }

    pub(crate) fn is_wide(&self) -> bool {
        matches!(self.mode, PagingMode::X64 | PagingMode::La57)
    }

    /// The physical address of a page, mapped if it was not.
    pub(crate) fn page(&mut self, at: u64) -> PhysAddr {
        let page = at & !(PAGE - 1);
        if let Some(phys) = self.pages.get(&page) {
            return *phys;
        }
        let phys = self.builder.frame().unwrap();
        let kernel = page >= 1 << 47 || (!self.is_wide() && page >= 1 << 31);
        let bits = PRESENT | WRITABLE | if kernel { 0 } else { USER };
        self.builder.map(VirtAddr::new(page), phys, PageSize::KIB_4, bits).unwrap();
        self.pages.insert(page, phys);
        phys
    }

    /// Puts bytes at an address.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
        for (offset, byte) in bytes.iter().enumerate() {
            let at = at + offset as u64;
            let phys = self.page(at);
            self.builder.write(phys.wrapping_add(at % PAGE), &[*byte]).unwrap();
        }
        self
    }

    pub(crate) fn u32(&mut self, at: u64, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, at: u64, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// A number as wide as a pointer.
    pub(crate) fn word(&mut self, at: u64, value: u64) -> &mut Self {
        if self.is_wide() { self.u64(at, value) } else { self.u32(at, value as u32) }
    }

    /// A `UNICODE_STRING` with its text elsewhere.
    pub(crate) fn string(&mut self, at: u64, text_at: u64, text: &str) -> &mut Self {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len = units.len() as u16;
        let width = if self.is_wide() { 8 } else { 4 };
        self.put(at, &len.to_le_bytes()).put(at + 2, &len.to_le_bytes()).word(at + width, text_at);
        self.put(text_at, &units)
    }

    /// Links `LIST_ENTRY`s into a ring.
    pub(crate) fn ring(&mut self, nodes: &[u64]) -> &mut Self {
        let width = if self.is_wide() { 8 } else { 4 };
        for (index, node) in nodes.iter().enumerate() {
            let next = nodes[(index + 1) % nodes.len()];
            self.word(*node, next);
            self.word(next + width, *node);
        }
        self
    }

    /// Exports a variable of 16 bytes; its address.
    pub(crate) fn variable(&mut self, name: &str) -> u64 {
        let at = self.data_end;
        self.put(at, &[0; 16]);
        self.data_end += 16;
        self.exports.insert(name.to_owned(), at - self.base);
        at
    }

    fn headers(&mut self) {
        let base = self.base;
        let wide = self.is_wide();
        let (magic, optional, directories): (u16, u16, u64) = if wide { (0x20b, 0xf0, 112) } else { (0x10b, 0xe0, 96) };
        let pe = base + 0x80;
        self.put(base, &[0; 0x1000]).put(base, b"MZ").u32(base + 0x3c, 0x80).put(pe, b"PE\0\0");
        self.put(pe + 4, &if wide { 0x8664_u16 } else { 0x14c }.to_le_bytes()).put(pe + 6, &2_u16.to_le_bytes());
        self.put(pe + 20, &optional.to_le_bytes()).put(pe + 24, &magic.to_le_bytes());
        self.u32(pe + 24 + 56, SIZE as u32).u32(pe + 24 + directories - 4, 16);
        self.u32(pe + 24 + directories, EXPORTS as u32).u32(pe + 24 + directories + 4, 0x4000);
        self.u32(pe + 24 + directories + 48, SYMBOLS as u32).u32(pe + 24 + directories + 52, 28);
        let sections = pe + 24 + u64::from(optional);
        for (number, (name, at, flags)) in
            [(".text", CODE, 0x6000_0020_u32), (".data", DATA, 0xc000_0040)].iter().enumerate()
        {
            let section = sections + 40 * number as u64;
            self.put(section, name.as_bytes()).u32(section + 8, 0x1000).u32(section + 12, *at as u32);
            self.u32(section + 36, *flags);
        }
        let record = SYMBOLS + 0x100;
        self.put(base + SYMBOLS, &[0; 0x200]).u32(base + SYMBOLS + 12, 2).u32(base + SYMBOLS + 16, 0x40);
        self.u32(base + SYMBOLS + 20, record as u32);
        self.put(
            base + record,
            b"RSDS\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x01\0\0\0ntkrnlmp.pdb\0",
        );
    }

    fn write_exports(&mut self) {
        let directory = self.base + EXPORTS;
        let exports: Vec<(String, u64)> = self.exports.clone().into_iter().collect();
        let count = exports.len() as u32;
        let (functions, names, numbers, texts) = (0x100, 0x800, 0x1000, 0x1800);
        self.put(directory, &[0; 0x3000])
            .u32(directory + 12, EXPORTS as u32 + 0x80)
            .put(directory + 0x80, b"ntoskrnl.exe\0");
        self.u32(directory + 20, count).u32(directory + 24, count);
        for (field, table) in [(28, functions), (32, names), (36, numbers)] {
            self.u32(directory + field, (EXPORTS + table) as u32);
        }
        let mut text = texts;
        for (number, (name, at)) in exports.iter().enumerate() {
            let number = number as u64;
            self.u32(directory + functions + number * 4, *at as u32);
            self.u32(directory + names + number * 4, (EXPORTS + text) as u32);
            self.put(directory + numbers + number * 2, &(number as u16).to_le_bytes());
            self.put(directory + text, name.as_bytes()).put(directory + text + name.len() as u64, &[0]);
            text += name.len() as u64 + 1;
        }
    }

    /// The list of loaded modules, of which the kernel is the first.
    pub(crate) fn modules(&mut self, entries: u64, modules: &[(&str, u64)]) {
        let head = self.variable("PsLoadedModuleList");
        let (base_at, size_at, path_at, name_at) =
            if self.is_wide() { (0x30, 0x40, 0x48, 0x58) } else { (0x18, 0x20, 0x24, 0x2c) };
        let mut nodes = vec![head];
        for (number, (name, base)) in modules.iter().enumerate() {
            let at = entries + 0x400 * number as u64;
            self.put(at, &[0; 0x80]).word(at + base_at, *base).u32(at + size_at, SIZE as u32);
            self.string(at + path_at, at + 0x100, &format!("\\SystemRoot\\system32\\{name}"));
            self.string(at + name_at, at + 0x200, name);
            nodes.push(at);
        }
        self.ring(&nodes);
    }

    /// Windows' page tables map themselves.
    pub(crate) fn map_tables(&mut self) {
        let root = self.builder.root();
        match self.mode {
            PagingMode::Pae => {
                let frame = |entry: u64| entry & 0x000f_ffff_ffff_f000;
                let directories: Vec<u64> =
                    (0..4).map(|number| frame(self.builder.entry(root.wrapping_add(number * 8)).unwrap())).collect();
                for (number, directory) in (0u64..).zip(&directories) {
                    let at = PhysAddr::new(directories[3]).wrapping_add(number * 8);
                    self.builder.set_entry(at, directory | 0x63).unwrap();
                }
            }
            PagingMode::X86 | PagingMode::X86NoPse => {
                self.builder.set_entry(root.wrapping_add(0xc00), root.as_u64() | 0x63).unwrap();
            }
            _ => {
                // What leads to the kernel is not for users, at any level.
                for entry in 256..512 {
                    let at = root.wrapping_add(entry * 8);
                    let value = self.builder.entry(at).unwrap();
                    self.builder.set_entry(at, value & !USER).unwrap();
                }
                self.builder.set_entry(root.wrapping_add(0x1a3 * 8), root.as_u64() | 0x63 | 1 << 63).unwrap();
            }
        }
    }

    /// The finished memory.
    pub(crate) fn memory(mut self) -> Arc<dyn PhysicalMemory> {
        self.write_exports();
        self.builder.build().unwrap().memory
    }
}
