//! How a file that lies is looked at.
//!
//! Owns: the bounds of what is read for it. Must not know: what the lie is.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use memflow_core::memory::PhysicalMemoryExt;
use memflow_snapshot::{
    BytesInput, OpenOptions, ParseOptions, ReadAt, avml, crash_dump, elf, kdump, lime, migration, open_bytes, vmware,
};

use crate::measure::bounded;

/// The length of the files.
pub(super) const LEN: usize = 1 << 20;
/// The pages that they claim.
pub(super) const PAGES: u64 = 16 << 20;

/// What becomes of a file.
pub(super) enum End {
    /// It is refused, with these words.
    Refused(&'static str),
    /// It is opened and holds this many bytes.
    Holds(u64),
}
use End::{Holds, Refused};

/// Bytes that count how often they are read.
struct Counted {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl ReadAt for Counted {
    fn path(&self) -> &Path {
        "claims".as_ref()
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = BytesInput::new("claims".as_ref(), &self.bytes).read_at(offset, buf)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Looks at a file in every way, and at how much of it is read for that.
pub(super) fn check(name: &str, bytes: &[u8], end: &End) {
    let options = OpenOptions { max_unpacked: Some(16 << 20), ..OpenOptions::default() };
    let opened = bounded(|| name.to_owned(), || open_bytes("claims", bytes, &options));
    match (opened, end) {
        (Ok(snapshot), Holds(expected)) => {
            let runs = snapshot.memory.metadata().runs;
            assert_eq!(runs.total_bytes(), *expected, "{name}");
            bounded(
                || format!("{name}, read"),
                || {
                    for run in runs.runs().iter().take(100) {
                        drop(snapshot.memory.read_into(run.range.start(), &mut [0; 64]));
                        drop(snapshot.memory.read_into(run.range.last().unwrap(), &mut [0; 1]));
                    }
                },
            );
        }
        (Err(error), Refused(words)) => assert!(error.to_string().contains(words), "{name}: {error}"),
        (Ok(snapshot), Refused(_)) => panic!("{name}: opened, {} bytes", snapshot.memory.metadata().runs.total_bytes()),
        (Err(error), Holds(_)) => panic!("{name}: {error}"),
    }
    let partial = OpenOptions { partial: true, ..options };
    bounded(|| format!("{name}, partial"), || drop(open_bytes("claims", bytes, &partial)));
    reads_are_in_proportion(name, bytes);
}

/// Each parser that takes bytes by position reads what is there a few times at most.
pub(super) fn reads_are_in_proportion(name: &str, bytes: &[u8]) {
    let counted = || Arc::new(Counted { bytes: bytes.to_vec(), read: AtomicU64::new(0) });
    for partial in [false, true] {
        let options = ParseOptions { partial };
        let input = counted();
        match bytes {
            [0x7f, b'E', ..] => drop(elf::parse(&*input, options)),
            [b'E', b'M', ..] => drop(lime::parse(&*input, options)),
            [b'P', b'A', ..] => drop(crash_dump::parse(&*input, options)),
            [b'A', b'V', ..] => drop(avml::parse(input.clone(), options)),
            [b'K', b'D', ..] => drop(kdump::parse(input.clone(), options)),
            [b'Q', b'E', ..] => drop(migration::parse(input.clone(), options)),
            _ => drop(vmware::parse(&*input)),
        }
        let read = input.read.load(Ordering::Relaxed);
        assert!(read <= 4 * bytes.len() as u64 + 0x1_0000, "{name}: {read:#x} bytes were read of {:#x}", bytes.len());
    }
}

/// A file of the length that all have.
pub(super) fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    assert!(bytes.len() <= LEN, "{:#x}", bytes.len());
    bytes.resize(LEN, 0);
    bytes
}
