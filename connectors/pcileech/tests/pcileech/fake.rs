//! The library in `fake.c`, compiled by whoever needs it first, and its log.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use memflow_core::Result;
use memflow_pcileech::{Connected, Options, open, parse_map};
use tempfile::TempDir;

/// Where the fake's memory begins, and its length.
pub(crate) const FIRST: u64 = 0x10_0000;
pub(crate) const SIZE: u64 = 0x4_0000;

/// What the fake holds at an address.
pub(crate) fn byte_at(address: u64) -> u8 {
    (address.wrapping_mul(7) + (address >> 12)) as u8
}

pub(crate) fn bytes_at(address: u64, len: u64) -> Vec<u8> {
    (address..address + len).map(byte_at).collect()
}

/// The fake, with some of its text changed.
pub(crate) fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pcileech/fake.c");
    let status = Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"])
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&library)
        .status()
        .unwrap_or_else(|error| panic!("cc: {error}; a compiler for C is needed: apt install gcc"));
    assert!(status.success());
    library
}

pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("leechcore.so", &[]))
}

pub(crate) fn options() -> Options {
    Options::default().with_library(library())
}

/// A device of the fake, and the log of its calls.
pub(crate) struct Fake {
    pub(crate) connected: Connected,
    folder: TempDir,
}

/// Opens a device that behaves as the words say.
pub(crate) fn fake(words: &str, options: &Options) -> Result<Fake> {
    let folder = tempfile::tempdir().unwrap();
    let device = format!("fake://log={};{words}", folder.path().join("log").display());
    Ok(Fake { connected: open(&device, options)?, folder })
}

/// The same, with a map of all its memory.
pub(crate) fn mapped(words: &str) -> Fake {
    let map = parse_map(&format!("{FIRST:#x}-{:#x}", FIRST + SIZE - 1)).unwrap();
    fake(words, &options().with_map(map)).unwrap()
}

impl Fake {
    /// What was called since the last time, but for opening.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.folder.path().join("log");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, "").unwrap();
        text.lines().filter(|line| !line.starts_with("create")).map(str::to_owned).collect()
    }
}
