//! What the tests of this crate are made of: a kernel's memory and types, written by hand.
//!
//! Owns: [`Memory`], sparse memory that tests fill, and [`types`], type information from a list of structures.
//! Must not know: what the tests test.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of tests may fail by panicking"
)]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use memflow_core::{
    MemoryView, Reason, Result, VirtAddr,
    memory::{Outcome, ViewRead, ViewWrite, finish_reads},
    view::ViewMetadata,
};

use crate::types::Types;

/// Sparse memory: bytes that were put are there, all others cannot be read.
#[derive(Default)]
pub(crate) struct Memory {
    bytes: BTreeMap<u64, u8>,
    calls: AtomicUsize,
}

impl Memory {
    /// Puts bytes at an address.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
        for (offset, byte) in bytes.iter().enumerate() {
            self.bytes.insert(at + offset as u64, *byte);
        }
        self
    }

    /// Puts a little-endian 64-bit number.
    pub(crate) fn put_u64(&mut self, at: u64, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Puts a little-endian 32-bit number.
    pub(crate) fn put_u32(&mut self, at: u64, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Makes `len` bytes readable that are not yet, with zeros.
    pub(crate) fn zero(&mut self, at: u64, len: u64) -> &mut Self {
        for address in at..at + len {
            self.bytes.entry(address).or_insert(0);
        }
        self
    }

    /// Links the `list_head`s at these addresses into a ring, in this order.
    pub(crate) fn ring(&mut self, nodes: &[u64]) -> &mut Self {
        for (index, node) in nodes.iter().enumerate() {
            let next = nodes[(index + 1) % nodes.len()];
            self.put_u64(*node, next);
            self.put_u64(next + 8, *node);
        }
        self
    }

    /// Batches read so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl MemoryView for Memory {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        for op in &mut *ops {
            op.outcome = Outcome::Done;
            for offset in 0..op.buf.len() as u64 {
                match op.addr.checked_add(offset).and_then(|at| self.bytes.get(&at.as_u64())) {
                    Some(byte) => op.buf[offset as usize] = *byte,
                    None => op.outcome.fail(offset, Reason::OutOfRange),
                }
            }
        }
        finish_reads("test memory", ops)
    }

    fn write_batch(&self, ops: &mut [ViewWrite<'_>]) -> Result<()> {
        memflow_core::memory::finish_writes("test memory", ops)
    }

    fn metadata(&self) -> ViewMetadata {
        ViewMetadata { last_address: VirtAddr::new(u64::MAX), pointer_size: 8, read_only: true }
    }
}

/// The type of a member.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    /// So many bytes.
    Bytes(u32),
    /// A structure of that name, listed before.
    Struct(&'static str),
    /// An array of so many structures of that name.
    Array(&'static str, u32),
}

/// A structure: name, size, members as name, offset and type.
pub(crate) type Structure = (&'static str, u32, &'static [(&'static str, u32, Of)]);

/// Type information (BTF, Documentation/bpf/btf.rst) that describes these structures and the constants of one enumeration.
pub(crate) fn types(structures: &[Structure]) -> Types {
    let mut writer = Btf { types: Vec::new(), strings: vec![0], count: 0 };
    // INT: name, info (kind 1), size, encoding.
    let byte = writer.add("byte", 1 << 24, 1, &[8]);
    let mut known: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, size, members) in structures {
        let mut data = Vec::new();
        for (member, offset, of) in *members {
            let id = match of {
                Of::Bytes(1) => byte,
                Of::Bytes(len) => writer.add("", 3 << 24, 0, &[byte, byte, *len]),
                Of::Struct(name) => known[name],
                Of::Array(name, count) => writer.add("", 3 << 24, 0, &[known[name], byte, *count]),
            };
            data.extend([writer.string(member), id, offset * 8]);
        }
        let id = writer.add(name, 4 << 24 | members.len() as u32, *size, &data);
        known.insert(name, id);
    }
    Types::parse(writer.finish()).unwrap()
}

struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Btf {
    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, info: u32, size: u32, data: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, info, size].iter().chain(data) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn finish(self) -> Vec<u8> {
        let mut out = vec![0x9f, 0xeb, 1, 0];
        let types = self.types.len() as u32;
        for word in [24, 0, types, types, self.strings.len() as u32] {
            out.extend(word.to_le_bytes());
        }
        out.extend(self.types);
        out.extend(self.strings);
        out
    }
}
