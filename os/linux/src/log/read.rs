//! Reading the log of a kernel: which layout it has, and its parts in bulk.
//!
//! Owns: the reads. Must not know: what a record looks like inside.
//! Keeps: sizes from the target are limited before anything is read; a field's existence decides, never a version.
//! Source: Linux `kernel/printk/printk.c`, `kernel/printk/printk_ringbuffer.h`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{
    Error, MemoryViewExt, Result, VirtAddr,
    os::{Listing, LogRecord},
};

use super::{
    flat::{self, FlatLayout},
    ring::{self, Ring, RingLayout},
};
use crate::kernel::Kernel;

/// Largest text buffer, binary logarithm. `log_buf_len=` takes at most 2 GiB; nobody has a log of more than this.
const MAX_TEXT_BITS: u64 = 28;
/// Most descriptors, binary logarithm.
const MAX_COUNT_BITS: u64 = 24;

/// The records of the kernel's log.
pub(crate) fn read_log(kernel: &Kernel) -> Result<Listing<LogRecord>> {
    if kernel.types.has("printk_ringbuffer") { read_ring(kernel) } else { read_flat(kernel) }
}

/// The binary logarithm of a size, if it is within its limit.
fn bits(what: &'static str, address: VirtAddr, found: u64, limit: u64) -> Result<u32> {
    u32::try_from(found).ok().filter(|_| (1..=limit).contains(&found)).ok_or_else(|| Error::Corrupt {
        what,
        address: address.into(),
        expected: format!("1 to {limit} bits").into(),
        found: found.to_string().into(),
    })
}

fn read_ring(kernel: &Kernel) -> Result<Listing<LogRecord>> {
    let (types, view) = (&kernel.types, &kernel.view);
    let layout = RingLayout::of(types)?;
    let prb = view.read_pointer(kernel.symbols.require("prb")?)?;
    let member = |path: &str| kernel.number(prb, "printk_ringbuffer", path);
    let count_bits = bits("printk descriptor ring", prb, member("desc_ring.count_bits")?, MAX_COUNT_BITS)?;
    let size_bits = bits("printk text ring", prb, member("text_data_ring.size_bits")?, MAX_TEXT_BITS)?;
    let descs = VirtAddr::new(member("desc_ring.descs")?);
    let infos = VirtAddr::new(member("desc_ring.infos")?);
    let data = VirtAddr::new(member("text_data_ring.data")?);
    let tail = member("desc_ring.tail_id")? & ring::ID_MASK;
    let head = member("desc_ring.head_id")? & ring::ID_MASK;
    let len = head.wrapping_sub(tail).wrapping_add(1) & ring::ID_MASK;
    let count = 1u64 << count_bits;
    if len > count {
        return Err(Error::Corrupt {
            what: "printk descriptor ring",
            address: prb.into(),
            expected: format!("at most {count} descriptors in use").into(),
            found: format!("{len} (from {tail:#x} to {head:#x})").into(),
        });
    }
    // The entries in use, in order of their numbers: up to the end of the array, then from its start.
    let in_order = |table: VirtAddr, size: u64| -> Result<Vec<u8>> {
        let first = tail & count.wrapping_sub(1);
        let before_end = len.min(count.wrapping_sub(first));
        let start = table.wrapping_add(first.wrapping_mul(size));
        let mut bytes = view.read_bytes(start, before_end.saturating_mul(size))?;
        bytes.extend(view.read_bytes(table, len.wrapping_sub(before_end).saturating_mul(size))?);
        Ok(bytes)
    };
    let before = in_order(descs, layout.desc_size)?;
    let infos = in_order(infos, layout.info_size)?;
    let text = view.read_bytes(data, 1 << size_bits)?;
    // A live kernel may have reused a record meanwhile; then its descriptor has changed.
    let after = in_order(descs, layout.desc_size)?;
    Ok(Ring { tail, count: len, descs: &before, descs_after: &after, infos: &infos, text: &text, text_at: data }
        .records(&layout))
}

fn read_flat(kernel: &Kernel) -> Result<Listing<LogRecord>> {
    let (view, symbols) = (&kernel.view, &kernel.symbols);
    let layout = FlatLayout::of(&kernel.types)?;
    let at = view.read_pointer(symbols.require("log_buf")?)?;
    let index = |name| -> Result<u64> { Ok(u32::from_le(view.read::<u32>(symbols.require(name)?)?).into()) };
    let len = index("log_buf_len")?;
    if len > 1 << MAX_TEXT_BITS {
        return Err(Error::Limit { what: "log_buf", address: at.into(), limit: 1 << MAX_TEXT_BITS });
    }
    let first_seq = u64::from_le(view.read::<u64>(symbols.require("log_first_seq")?)?);
    let next_seq = u64::from_le(view.read::<u64>(symbols.require("log_next_seq")?)?);
    let bytes = view.read_bytes(at, len)?;
    Ok(flat::records(&layout, at, &bytes, index("log_first_idx")?, first_seq, next_seq))
}
