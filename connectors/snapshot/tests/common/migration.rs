//! A migration stream, written from QEMU's own description of it.

/// Records of RAM.
#[derive(Clone, Debug)]
pub enum Record {
    /// Block, address in it, bytes of the page.
    Page(&'static str, u64, Vec<u8>),
    /// Block, address in it, the byte that fills the page.
    Fill(&'static str, u64, u8),
    /// Block, address in it, bytes of the page, which are compressed with zlib.
    Zlib(&'static str, u64, Vec<u8>),
    /// The end of a section, and the beginning of the next.
    NextSection,
}

/// What a stream is made of.
#[derive(Clone, Debug)]
pub struct Stream {
    pub machine: &'static str,
    pub capabilities: Vec<&'static str>,
    pub blocks: Vec<(&'static str, u64)>,
    pub records: Vec<Record>,
    /// Sizes of pages that postcopy announces, and those of blocks that say theirs.
    pub postcopy: Option<(u64, Vec<(&'static str, u64)>)>,
    pub footers: bool,
    /// A section of something else between those of RAM.
    pub stranger: bool,
    /// What comes behind RAM.
    pub devices: Vec<u8>,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            machine: "pc-i440fx-7.2",
            capabilities: Vec::new(),
            blocks: vec![("pc.ram", 0x10_0000), ("vga.vram", 0x2000), ("/rom@etc/acpi/tables", 0x1000)],
            records: Vec::new(),
            postcopy: None,
            footers: true,
            stranger: false,
            devices: section(4, 9, "timer", 0, 2, &[0; 24], true),
        }
    }
}

/// A field of a state: its name, the width of its numbers, and the numbers; no name stands for bytes that nobody reads.
pub type Field = (&'static str, usize, Vec<u64>);

/// The state of vCPU `instance`, with a subsection behind its fields.
pub fn cpu(number: u32, instance: u32, fields: &[Field]) -> Vec<u8> {
    let mut data = Vec::new();
    for (_, width, numbers) in fields {
        numbers.iter().for_each(|number| data.extend(&number.to_be_bytes()[8 - width..]));
    }
    data.push(5);
    text(&mut data, "cpu/more");
    data.extend([0, 0, 0, 1, 0x55, 0x66]);
    section(4, number, "cpu", instance, 12, &data, true)
}

/// The description of such states, one behind the other.
pub fn description(vcpus: u32, fields: &[Field]) -> Vec<u8> {
    let field = |(name, width, numbers): &Field| match numbers.len() {
        1 => format!(r#"{{"name": "{name}", "type": "uint64", "size": {width}}}"#),
        len => format!(r#"{{"name": "{name}", "array_len": {len}, "type": "uint64", "size": {width}}}"#),
    };
    let fields = fields.iter().map(field).collect::<Vec<_>>().join(", ");
    let cpu = |instance: u32| {
        format!(
            r#"{{"name": "cpu", "instance_id": {instance}, "vmsd_name": "cpu", "version": 12, "fields": [{fields}],
            "subsections": [{{"vmsd_name": "cpu/more", "version": 1, "fields": [{{"name": "x", "size": 2}}]}}]}}"#
        )
    };
    let cpus = (0..vcpus).map(cpu).collect::<Vec<_>>().join(", ");
    let json = format!(
        r#"{{"page_size": 4096, "devices": [{{"name": "slirp", "instance_id": 0, "size": 9, "fields": [{{"name": "data", "size": 9, "type": "buffer"}}]}}, {cpus}]}}"#
    );
    // The end of the stream comes before.
    let mut out = vec![0, 6];
    out.extend((json.len() as u32).to_be_bytes());
    out.extend(json.as_bytes());
    out
}

/// A section with a name, as START and FULL are.
pub fn section(kind: u8, number: u32, name: &str, instance: u32, version: u32, data: &[u8], footer: bool) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(number.to_be_bytes());
    text(&mut out, name);
    out.extend(instance.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(data);
    if footer {
        out.push(0x7e);
        out.extend(number.to_be_bytes());
    }
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}

const RAM: u32 = 2;
const EOS: u64 = 0x10;

impl Stream {
    pub fn write(&self) -> Vec<u8> {
        let mut out = self.head();
        let mut list = Vec::new();
        for (name, len) in &self.blocks {
            self.block(&mut list, name, *len);
        }
        list.extend(EOS.to_be_bytes());
        out.extend(section(1, RAM, "ram", 0, 4, &[self.total().to_vec(), list].concat(), self.footers));
        if self.stranger {
            // It holds what looks like its own end, of another section, and a record.
            out.extend(section(1, 7, "dirty-bitmap", 0, 1, b"\x7e\0\0\0\x02\x02abc\0\0\0\0\0\0\x10\x08", true));
        }
        let mut last = "";
        let part = |kind: u8| [vec![kind], RAM.to_be_bytes().to_vec()].concat();
        let end = |out: &mut Vec<u8>| {
            out.extend(EOS.to_be_bytes());
            if self.footers {
                out.push(0x7e);
                out.extend(RAM.to_be_bytes());
            }
        };
        out.extend(part(2));
        for record in &self.records {
            let (block, address, flag) = match record {
                Record::Page(block, address, _) => (block, address, 0x08u64),
                Record::Fill(block, address, _) => (block, address, 0x02),
                Record::Zlib(block, address, _) => (block, address, 0x100),
                Record::NextSection => {
                    end(&mut out);
                    out.extend(part(2));
                    continue;
                }
            };
            let again = *block == last;
            out.extend((address | flag | if again { 0x20 } else { 0 }).to_be_bytes());
            if !again {
                text(&mut out, block);
                last = block;
            }
            match record {
                Record::Page(_, _, bytes) => out.extend(bytes),
                Record::Fill(_, _, byte) => out.push(*byte),
                Record::Zlib(_, _, bytes) => {
                    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                    std::io::Write::write_all(&mut encoder, bytes).unwrap();
                    let packed = encoder.finish().unwrap();
                    out.extend((packed.len() as u32).to_be_bytes());
                    out.extend(packed);
                }
                Record::NextSection => {}
            }
        }
        end(&mut out);
        out.extend(part(3));
        end(&mut out);
        out.extend(&self.devices);
        out.push(0);
        out
    }

    /// The same memory with pages at fixed places: those of `present`, by block.
    pub fn write_mapped(&self, present: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
        self.write_mapped_behind(0, present)
    }

    /// The same, behind so many other bytes; they are zeros here.
    pub fn write_mapped_behind(&self, base: usize, present: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
        const ALIGN: usize = 0x1000;
        let mut out = vec![0; base];
        out.extend(self.head());
        let mut ram = vec![1];
        ram.extend(RAM.to_be_bytes());
        text(&mut ram, "ram");
        ram.extend(0u32.to_be_bytes());
        ram.extend(4u32.to_be_bytes());
        ram.extend(self.total());
        out.extend(ram);
        for (name, len) in &self.blocks {
            self.block(&mut out, name, *len);
            let pages = *len as usize / 0x1000;
            let bitmap_at = out.len() + 28;
            let mut bitmap = vec![0u8; pages.div_ceil(64) * 8];
            let pages_at = (bitmap_at + bitmap.len()).next_multiple_of(ALIGN);
            for (_, address, _) in present.iter().filter(|(block, ..)| block == name) {
                bitmap[*address as usize / 0x1000 / 8] |= 1 << (address / 0x1000 % 8);
            }
            out.extend(1u32.to_be_bytes());
            for number in [0x1000, bitmap_at as u64, pages_at as u64] {
                out.extend(number.to_be_bytes());
            }
            out.extend(bitmap);
            // What an absent page has in its place is left from before.
            out.resize(pages_at, 0);
            out.resize(pages_at + *len as usize, 0xee);
            for (_, address, bytes) in present.iter().filter(|(block, ..)| block == name) {
                let at = pages_at + *address as usize;
                out[at..at + 0x1000].copy_from_slice(bytes);
            }
        }
        for kind in [1, 2, 3] {
            if kind != 1 {
                out.push(kind);
                out.extend(RAM.to_be_bytes());
            }
            out.extend(0x200u64.to_be_bytes());
            out.extend(EOS.to_be_bytes());
            out.push(0x7e);
            out.extend(RAM.to_be_bytes());
        }
        out.extend(&self.devices);
        out.push(0);
        out
    }

    fn head(&self) -> Vec<u8> {
        let mut out = b"QEVM\0\0\0\x03\x07".to_vec();
        out.extend((self.machine.len() as u32).to_be_bytes());
        out.extend(self.machine.as_bytes());
        if !self.capabilities.is_empty() {
            out.push(5);
            text(&mut out, "configuration/capabilities");
            out.extend(1u32.to_be_bytes());
            out.extend((self.capabilities.len() as u32).to_be_bytes());
            self.capabilities.iter().for_each(|name| text(&mut out, name));
        }
        out.extend(b"\x05\x12configuration/uuid\0\0\0\x01");
        out.extend([0x11; 16]);
        if let Some((sizes, _)) = &self.postcopy {
            out.extend(b"\x08\0\x03\0\x10");
            out.extend(sizes.to_be_bytes());
            out.extend(0x1000u64.to_be_bytes());
        }
        // A ping.
        out.extend(b"\x08\0\x02\0\x04\0\0\0\x01");
        out
    }

    fn total(&self) -> [u8; 8] {
        let total: u64 = self.blocks.iter().map(|(_, len)| len).sum();
        (total | 0x04).to_be_bytes()
    }

    fn block(&self, out: &mut Vec<u8>, name: &str, len: u64) {
        text(out, name);
        out.extend(len.to_be_bytes());
        let sizes = self.postcopy.iter().flat_map(|(_, blocks)| blocks);
        sizes.filter(|(block, _)| *block == name).for_each(|(_, size)| out.extend(size.to_be_bytes()));
        if self.capabilities.contains(&"x-ignore-shared") {
            out.extend(0x7777_0000u64.to_be_bytes());
        }
    }
}

/// The header of libvirt's save files, with XML behind it.
pub fn libvirt(magic: &[u8; 16], version: u32, format: u32, xml: &[u8]) -> Vec<u8> {
    let mut out = magic.to_vec();
    for number in [version, xml.len() as u32, 1, format, 0] {
        out.extend(number.to_le_bytes());
    }
    out.extend([0; 56]);
    out.extend(xml);
    out
}
