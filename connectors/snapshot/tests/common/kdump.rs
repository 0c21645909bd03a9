//! Writes kdump-compressed dumps from `diskdump_mod.h` of makedumpfile, without any code of the crate.

use std::io::Write;

/// How pages are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Stored,
    Zlib,
    Lzo,
    Snappy,
    Zstd,
}

impl Method {
    pub const ALL: [Self; 5] = [Self::Stored, Self::Zlib, Self::Lzo, Self::Snappy, Self::Zstd];

    fn flag(self) -> u32 {
        match self {
            Self::Stored => 0,
            Self::Zlib => 1,
            Self::Lzo => 2,
            Self::Snappy => 4,
            Self::Zstd => 0x20,
        }
    }

    fn compress(self, page: &[u8]) -> Vec<u8> {
        match self {
            Self::Stored => page.to_vec(),
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(page).unwrap();
                encoder.finish().unwrap()
            }
            Self::Lzo => lzokay::compress::compress(page).unwrap(),
            Self::Snappy => snap::raw::Encoder::new().compress_vec(page).unwrap(),
            Self::Zstd => zstd::bulk::compress(page, 1).unwrap(),
        }
    }
}

/// A dump: all pages of memory, of which those without bytes are left out.
#[derive(Clone)]
pub struct Kdump {
    pub wide: bool,
    pub version: u32,
    pub machine: &'static str,
    pub block_size: u64,
    pub method: Method,
    pub dump_level: u32,
    pub max_mapnr: u64,
    /// Page frame number, and bytes if the page is in the file.
    pub pages: Vec<(u64, Option<Vec<u8>>)>,
    pub vmcoreinfo: Vec<u8>,
    pub notes: Vec<u8>,
    /// First and last but one page of this part.
    pub split: Option<(u64, u64)>,
    pub status: u32,
}

impl Default for Kdump {
    fn default() -> Self {
        Self {
            wide: true,
            version: 6,
            machine: "x86_64",
            block_size: 4096,
            method: Method::Zlib,
            dump_level: 1,
            max_mapnr: 0x200,
            pages: Vec::new(),
            vmcoreinfo: b"OSRELEASE=6.1.0\n".to_vec(),
            notes: Vec::new(),
            split: None,
            status: 0,
        }
    }
}

impl Kdump {
    /// The bytes of the file.
    pub fn write(&self) -> Vec<u8> {
        let block = self.block_size as usize;
        let bitmap_blocks = (self.max_mapnr as usize).div_ceil(8).div_ceil(block);
        // Header, sub-header with VMCOREINFO and notes behind it.
        let notes_len = 512 + self.vmcoreinfo.len() + self.notes.len();
        let sub_blocks = notes_len.div_ceil(block);
        let mut out = b"KDUMP   ".to_vec();
        out.extend(self.version.to_le_bytes());
        for name in ["Linux", "node", "6.1.0", "version", self.machine, "domain"] {
            let mut field = name.as_bytes().to_vec();
            field.resize(65, 0);
            out.extend(field);
        }
        out.resize(if self.wide { 424 } else { 412 }, 0);
        let narrow_max = u32::try_from(self.max_mapnr).unwrap_or(u32::MAX);
        for field in [self.status, block as u32, sub_blocks as u32, 2 * bitmap_blocks as u32, narrow_max, 0, 0, 0, 0, 1]
        {
            out.extend(field.to_le_bytes());
        }
        out.resize(block, 0);
        self.sub_header(&mut out, block);
        out.resize(block + 512, 0);
        out.extend(&self.vmcoreinfo);
        out.extend(&self.notes);
        out.resize(block * (1 + sub_blocks), 0);
        for only_present in [false, true] {
            let mut bits = vec![0u8; bitmap_blocks * block];
            for (pfn, bytes) in &self.pages {
                if bytes.is_some() || !only_present {
                    bits[*pfn as usize / 8] |= 1 << (pfn % 8);
                }
            }
            out.extend(bits);
        }
        // A part has the descriptors of its own pages.
        let (first, end) = self.split.unwrap_or((0, u64::MAX));
        let present: Vec<&Vec<u8>> = self
            .pages
            .iter()
            .filter(|(pfn, _)| (first..end).contains(pfn))
            .filter_map(|(_, bytes)| bytes.as_ref())
            .collect();
        let mut at = out.len() + 24 * present.len();
        let mut data = Vec::new();
        for page in present {
            let packed = self.method.compress(page);
            // As makedumpfile does: what does not get smaller is stored.
            let (flag, bytes) =
                if packed.len() < page.len() { (self.method.flag(), packed) } else { (0, page.clone()) };
            out.extend((at as u64).to_le_bytes());
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(flag.to_le_bytes());
            out.extend(0u64.to_le_bytes());
            at += bytes.len();
            data.extend(bytes);
        }
        out.extend(data);
        out
    }

    fn sub_header(&self, out: &mut Vec<u8>, block: usize) {
        let (start, end) = self.split.unwrap_or((0, 0));
        let vmcoreinfo = (block + 512) as u64;
        let notes = vmcoreinfo + self.vmcoreinfo.len() as u64;
        let word = |out: &mut Vec<u8>, value: u64| {
            if self.wide {
                out.extend(value.to_le_bytes());
            } else {
                out.extend(u32::try_from(value).unwrap().to_le_bytes());
            }
        };
        word(out, 0);
        out.extend(self.dump_level.to_le_bytes());
        out.extend(u32::from(self.split.is_some()).to_le_bytes());
        word(out, start);
        word(out, end);
        for (offset, len) in [(vmcoreinfo, self.vmcoreinfo.len()), (notes, self.notes.len()), (0, 0)] {
            out.extend(offset.to_le_bytes());
            word(out, len as u64);
        }
        for field in [start, end, self.max_mapnr] {
            out.extend(field.to_le_bytes());
        }
    }
}
