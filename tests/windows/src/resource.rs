//! The version resource of an image.
//!
//! Owns: the tree of resources with one leaf, and the structure in it. Must not know: what the texts are used for.
//! Keeps: every structure in it begins at a multiple of four bytes, as readers expect.
//! Source: Microsoft's documentation of `VS_VERSIONINFO` and of the resource section.

use std::collections::BTreeMap;

use crate::{machine::utf16, offsets::Version, pe::Pe};

/// The number of the type "version".
const TYPE_VERSION: u32 = 16;
const ENGLISH: u32 = 0x409;

/// Texts of a version resource.
pub(crate) type Texts = BTreeMap<String, String>;

/// The texts that Microsoft's own files have.
pub(crate) fn texts(file: &str, description: &str, version: Version) -> Texts {
    let name = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        name("CompanyName", "Microsoft Corporation"),
        name("FileDescription", description),
        name("FileVersion", &format!("{version} (WinBuild.160101.0800)")),
        name("InternalName", file),
        name("OriginalFilename", file),
        name("ProductName", "Microsoft\u{ae} Windows\u{ae} Operating System"),
        name("ProductVersion", &version.to_string()),
    ])
}

impl Pe {
    /// Writes resources at `at`, which has to be the begin of their section. Returns where they end.
    pub(crate) fn resources(&mut self, at: u32, version: Version, texts: &Texts) -> u32 {
        let data = info(version, texts);
        // Three levels: type, name, language; then where the data is.
        let levels = [(TYPE_VERSION, 0x8000_0000 | 24), (1, 0x8000_0000 | 48), (ENGLISH, 72)];
        for (level, (id, below)) in (0..).zip(levels) {
            let table = at + level * 24;
            self.write(table, &[0; 14]);
            self.write(table + 14, &1_u16.to_le_bytes());
            self.put(table + 16, id);
            self.put(table + 20, below);
        }
        self.write(at + 72, &[at + 88, data.len() as u32, 1200, 0].map(u32::to_le_bytes).concat());
        self.write(at + 88, &data);
        let size = 88 + data.len() as u32;
        self.directory(2, at, size);
        at + size
    }
}

/// A block: its length, the length of its value, whether that is text, its name, its value, what is in it.
fn block(key: &str, value: &[u8], value_length: u16, text: bool, inner: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(value_length.to_le_bytes());
    bytes.extend(u16::from(text).to_le_bytes());
    bytes.extend(utf16(key));
    bytes.extend([0, 0]);
    pad(&mut bytes);
    bytes.extend(value);
    for inner in inner {
        pad(&mut bytes);
        bytes.extend(inner);
    }
    let length = (bytes.len() as u16).to_le_bytes();
    bytes[..2].copy_from_slice(&length);
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn info(version: Version, texts: &Texts) -> Vec<u8> {
    let high = u32::from(version.major) << 16 | u32::from(version.minor);
    let low = u32::from(version.build) << 16 | u32::from(version.revision);
    let fixed =
        [0xfeef_04bd, 0x1_0000, high, low, high, low, 0x3f, 0, 0x4_0004, 2, 0, 0, 0].map(u32::to_le_bytes).concat();
    let strings: Vec<Vec<u8>> = texts
        .iter()
        .map(|(key, value)| {
            let mut characters = utf16(value);
            characters.extend([0, 0]);
            let count = characters.len() / 2;
            block(key, &characters, count as u16, true, &[])
        })
        .collect();
    let table = block("040904B0", &[], 0, true, &strings);
    let file = block("StringFileInfo", &[], 0, true, &[table]);
    let translation = block("Translation", &0x04b0_0409_u32.to_le_bytes(), 4, false, &[]);
    let variable = block("VarFileInfo", &[], 0, true, &[translation]);
    block("VS_VERSION_INFO", &fixed, 52, false, &[file, variable])
}
