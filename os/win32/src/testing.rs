//! What the tests of this crate are made of: sparse memory, written by hand.
//!
//! Owns: [`Memory`]. Must not know: what the tests test.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "a helper of tests may fail by panicking"
)]

use std::collections::BTreeMap;

use memflow_core::{
    MemoryView, Reason, Result, VirtAddr,
    memory::{Outcome, ViewRead, ViewWrite, finish_reads, finish_writes},
    view::ViewMetadata,
};

/// Sparse memory: bytes that were put are there, all others cannot be read.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    bytes: BTreeMap<u64, u8>,
    /// Pointers have 32 bits.
    pub(crate) narrow: bool,
}

impl Memory {
    /// Puts bytes at an address.
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes.iter().enumerate().map(|(offset, byte)| (at + offset as u64, *byte)));
        self
    }

    /// Puts a number of 64 bits.
    pub(crate) fn put_u64(&mut self, at: u64, value: u64) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Puts a number of 32 bits.
    pub(crate) fn put_u32(&mut self, at: u64, value: u32) -> &mut Self {
        self.put(at, &value.to_le_bytes())
    }

    /// Puts a `UNICODE_STRING` with its text behind it.
    pub(crate) fn put_string(&mut self, at: u64, text_at: u64, text: &str) -> &mut Self {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len = units.len() as u16;
        self.put(at, &len.to_le_bytes()).put(at + 2, &len.to_le_bytes()).put_u32(at + 4, 0).put_u64(at + 8, text_at);
        self.put(text_at, &units)
    }

    /// Makes bytes readable that are not yet, with zeros.
    pub(crate) fn zero(&mut self, at: u64, len: u64) -> &mut Self {
        for address in at..at + len {
            self.bytes.entry(address).or_insert(0);
        }
        self
    }

    /// Takes bytes away.
    pub(crate) fn remove(&mut self, at: u64, len: u64) -> &mut Self {
        self.bytes.retain(|address, _| !(at..at + len).contains(address));
        self
    }

    /// Links the `LIST_ENTRY`s at these addresses into a ring, in this order.
    pub(crate) fn ring(&mut self, nodes: &[u64]) -> &mut Self {
        for (index, node) in nodes.iter().enumerate() {
            let next = nodes[(index + 1) % nodes.len()];
            self.put_u64(*node, next);
            self.put_u64(next + 8, *node);
        }
        self
    }
}

impl MemoryView for Memory {
    fn read_batch(&self, ops: &mut [ViewRead<'_>]) -> Result<()> {
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
        finish_writes("test memory", ops)
    }

    fn metadata(&self) -> ViewMetadata {
        let (last, pointer_size) = if self.narrow { (0xffff_ffff, 4) } else { (u64::MAX, 8) };
        ViewMetadata { last_address: VirtAddr::new(last), pointer_size, read_only: true }
    }
}
