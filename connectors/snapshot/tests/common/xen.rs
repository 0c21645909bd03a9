//! Cores of Xen's guests, written from `docs/misc/dump-core-format.txt`.

/// What a core is made of.
#[derive(Clone, Debug)]
pub struct Core {
    pub paravirtual: bool,
    /// The guest's frame number, the machine's, and the bytes.
    pub pages: Vec<(u64, u64, Vec<u8>)>,
    /// CR3 and RIP of each vCPU.
    pub vcpus: Vec<(u64, u64)>,
    /// Size of a vCPU's context.
    pub context: usize,
    pub page_size: u64,
    pub magic: u64,
    /// Number of pages in the header, if it is not that of `pages`.
    pub claimed: Option<u64>,
    pub pages_name: &'static str,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            paravirtual: false,
            pages: Vec::new(),
            vcpus: Vec::new(),
            context: 5168,
            page_size: 0x1000,
            magic: 0xf00f_ebee,
            claimed: None,
            pages_name: ".xen_pages",
        }
    }
}

impl Core {
    pub fn write(&self) -> Vec<u8> {
        let magic = if self.paravirtual { 0xf00f_ebed } else { self.magic };
        let count = self.claimed.unwrap_or(self.pages.len() as u64);
        let header: Vec<u8> = [magic, self.vcpus.len() as u64, count, self.page_size]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let notes = [
            super::note("Xen", 0x200_0000, &[]),
            super::note("Xen", 0x200_0001, &header),
            super::note("Xen", 0x200_0002, &[0; 1276]),
            super::note("Xen", 0x200_0003, &1u64.to_le_bytes()),
        ]
        .concat();
        let mut contexts = Vec::new();
        for (cr3, rip) in &self.vcpus {
            let mut context = vec![0; self.context];
            let mut put = |at: usize, value: u64| {
                if let Some(place) = context.get_mut(at..at + 8) {
                    place.copy_from_slice(&value.to_le_bytes());
                }
            };
            // 512 bytes of the FPU, flags, 15 registers and two codes, then RIP, CS, RFLAGS, RSP.
            put(512 + 8 + 15 * 8 + 8, *rip);
            put(512 + 8 + 15 * 8 + 8 + 24, 0x5555);
            // All registers are 200 bytes; then 256 traps, LDT, 16 frames of the GDT and their number, the kernel's stack.
            let control = 520 + 200 + 256 * 16 + 16 + 16 * 8 + 8 + 16;
            put(control, 0x8005_0033);
            put(control + 24, *cr3);
            put(control + 32, 0x6f0);
            contexts.extend(context);
        }
        let numbers: Vec<u8> = self
            .pages
            .iter()
            .flat_map(|(pfn, gmfn, _)| if self.paravirtual { vec![*pfn, *gmfn] } else { vec![*pfn] })
            .flat_map(u64::to_le_bytes)
            .collect();
        let pages: Vec<u8> = self.pages.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
        let numbers_name = if self.paravirtual { ".xen_p2m" } else { ".xen_pfn" };
        let sections: [(&str, u32, Vec<u8>); 5] = [
            (".note.Xen", 7, notes),
            (".xen_prstatus", 1, contexts),
            (".xen_shared_info", 1, vec![0; 64]),
            (numbers_name, 1, numbers),
            // Last, so that a file that was cut short lacks pages.
            (self.pages_name, 1, pages),
        ];
        let mut names = b"\0.shstrtab\0".to_vec();
        let mut offset = 64 + 64 * (sections.len() + 2);
        let mut table = vec![0; 64];
        let mut body = Vec::new();
        let name_offsets: Vec<u32> = sections
            .iter()
            .map(|(name, ..)| {
                let at = names.len() as u32;
                names.extend(name.as_bytes());
                names.push(0);
                at
            })
            .collect();
        let mut add = |name: u32, kind: u32, bytes: &[u8]| {
            table.extend(name.to_le_bytes());
            table.extend(kind.to_le_bytes());
            for word in [0, 0, offset as u64, bytes.len() as u64, 0, 1, 0] {
                table.extend(word.to_le_bytes());
            }
            offset += bytes.len();
            body.extend(bytes);
        };
        add(1, 3, &names);
        for (name, (_, kind, bytes)) in name_offsets.iter().zip(&sections) {
            add(*name, *kind, bytes);
        }
        let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        out.extend(4u16.to_le_bytes());
        out.extend(62u16.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for word in [0u64, 0, 64] {
            out.extend(word.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for half in [64u16, 0, 0, 64, sections.len() as u16 + 2, 1] {
            out.extend(half.to_le_bytes());
        }
        [out, table, body].concat()
    }
}
