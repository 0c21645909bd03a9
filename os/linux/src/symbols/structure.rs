//! The symbol table found by its own structure, where nobody says where it lies.
//!
//! Owns: recognising tokens, their index, names, markers and the count around one landmark. Must not know: encodings of values,
//! whether addresses are physical or virtual.
//! Keeps: every table confirms its neighbour (index and tokens, markers and names), so bytes that only look alike are refused.
//! Source: Linux `scripts/kallsyms.c`: order of the tables until v6.3 and since v6.4, alignment to 4 bytes since v7.0.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, MemoryView, MemoryViewExt, Result, VirtAddr};

use super::kallsyms::{MAX_SYMBOLS, Tokens, name_len};
use crate::bytes::Bytes;

/// The texts of the tokens for the ten digits, which every kernel's names use: they stand for themselves, in order.
pub(crate) const LANDMARK: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
/// The token of the first digit.
const FIRST_DIGIT: u64 = 0x30;
/// Bytes of the index: one `u16` per token.
pub(super) const INDEX_LEN: u64 = 512;
/// Most bytes of the texts; those of real kernels have about 1 KiB.
const MAX_TOKENS: u64 = 16 << 10;
/// Most bytes from the count of symbols to the tokens: names, markers and (v6.2, v6.3) sequence numbers.
const MAX_BEFORE: u64 = 24 << 20;
/// Bytes before the tokens that are looked at first: more than a distribution's kernel needs.
const USUAL_BEFORE: u64 = 4 << 20;
/// Fewest symbols of a kernel worth the name.
const MIN_SYMBOLS: u32 = 256;
/// Names walked in search of the right count and start, over all wrong ones.
const MAX_WALKED: u64 = 8 << 20;
/// Names that must look like names before the rest is walked.
const CHECKED_NAMES: u32 = 64;
/// Names between two markers.
const PER_MARKER: u32 = 256;

/// The tables that do not depend on the encoding of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) count: VirtAddr,
    pub(super) symbols: u32,
    pub(super) names: VirtAddr,
    pub(super) names_len: u64,
    pub(super) token_table: VirtAddr,
    pub(super) token_index: VirtAddr,
}

/// The tables around a [`LANDMARK`] at `digits`; `start` is the first address that can be read before it. `None` when the digits are
/// not among 256 tokens.
pub(super) fn around(view: &dyn MemoryView, digits: VirtAddr, start: VirtAddr) -> Result<Option<Found>> {
    let mut after = vec![0; usize::try_from(MAX_TOKENS).unwrap_or(0)];
    // The image may end before that many bytes; what could not be read stays zero and confirms nothing.
    let _ = view.read_partial(digits, &mut after)?;
    let Some((index_at, first_digit)) = find_index(Bytes(&after)) else { return Ok(None) };
    let Some(token_table) = digits.checked_sub(first_digit).filter(|table| *table >= start) else { return Ok(None) };
    let token_index = digits.wrapping_add(index_at);
    let texts = view.read_bytes(token_table, index_at.saturating_add(first_digit))?;
    let index = Bytes(&after).slice(index_at, INDEX_LEN).unwrap_or_default();
    let Some(tokens) = Tokens::parse(&texts, index).filter(|tokens| tokens.are_consecutive(index)) else {
        return Ok(None);
    };
    let found = before_tokens(view, token_table, start, &tokens)?;
    let (count, symbols, names, names_len) = found;
    Ok(Some(Found { count, symbols, names, names_len, token_table, token_index }))
}

/// Address of the count, the count, address and length of the names: what lies before the tokens.
fn before_tokens(
    view: &dyn MemoryView,
    token_table: VirtAddr,
    start: VirtAddr,
    tokens: &Tokens,
) -> Result<(VirtAddr, u32, VirtAddr, u64)> {
    let before_len = token_table.offset_from(start).unwrap_or(0).min(MAX_BEFORE);
    if before_len > USUAL_BEFORE
        && let Ok(found) = in_front(view, token_table, USUAL_BEFORE, tokens)
    {
        return Ok(found);
    }
    in_front(view, token_table, before_len, tokens)
}

/// As [`before_tokens`], in so many bytes.
fn in_front(
    view: &dyn MemoryView,
    token_table: VirtAddr,
    before_len: u64,
    tokens: &Tokens,
) -> Result<(VirtAddr, u32, VirtAddr, u64)> {
    let before_at = token_table.wrapping_sub(before_len);
    let (bytes, before_at) = readable_tail(view, before_at, before_len)?;
    let before = Bytes(&bytes);
    let mut walks = MAX_WALKED;
    let mut place = before.len() & !3;
    while let Some(at) = place.checked_sub(4) {
        place = at;
        let Some(symbols) = before.u32(at).filter(|count| (MIN_SYMBOLS..=MAX_SYMBOLS).contains(count)) else {
            continue;
        };
        // Aligned to eight bytes, since v7.0 to four.
        for skip in [8, 4] {
            let names_at = at.saturating_add(skip);
            if let Some(len) = names_len(before, names_at, symbols, tokens, &mut walks) {
                return Ok((before_at.wrapping_add(at), symbols, before_at.wrapping_add(names_at), len));
            }
        }
    }
    Err(Error::Corrupt {
        what: "kallsyms",
        address: token_table.into(),
        expected: "names and markers before the tokens".into(),
        found: format!("none in {before_len:#x} bytes").into(),
    })
}

/// The last readable bytes of a range, and where they start.
fn readable_tail(view: &dyn MemoryView, at: VirtAddr, len: u64) -> Result<(Vec<u8>, VirtAddr)> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let read = view.read_partial(at, &mut bytes)?;
    let from = read.gaps.last().and_then(|gap| gap.range.end()).and_then(|end| end.offset_from(at)).unwrap_or(0);
    let tail = bytes.split_off(usize::try_from(from).unwrap_or(0).min(bytes.len()));
    Ok((tail, at.wrapping_add(from)))
}

/// Offset of the index in bytes that start with the landmark, and offset of the landmark in the tokens.
fn find_index(bytes: Bytes<'_>) -> Option<(u64, u64)> {
    let landmark = u64::try_from(LANDMARK.len()).ok()?;
    let end = bytes.len().checked_sub(INDEX_LEN)?;
    (landmark..end).step_by(2).find_map(|at| {
        // The tokens' texts end on any byte, the index is aligned; the landmark may not be.
        [at, at.saturating_add(1)].into_iter().find_map(|at| {
            let entry = |token: u64| bytes.u16(at.checked_add(token.checked_mul(2)?)?).map(u64::from);
            if entry(0)? != 0 {
                return None;
            }
            let first = entry(FIRST_DIGIT)?;
            let digits = (0..10u64).all(|digit| {
                entry(FIRST_DIGIT.saturating_add(digit)) == Some(first.saturating_add(digit.saturating_mul(2)))
            });
            (digits && first >= FIRST_DIGIT).then_some((at, first))
        })
    })
}

/// Length of `count` names from `at`, if markers follow that agree with every 256th of them.
fn names_len(bytes: Bytes<'_>, at: u64, count: u32, tokens: &Tokens, walks: &mut u64) -> Option<u64> {
    let start = usize::try_from(at).ok()?;
    let mut rest = bytes.0.get(start..)?;
    let all = rest.len();
    // Each name takes two bytes or more.
    if usize::try_from(count).ok()? > all.checked_div(2)? {
        return None;
    }
    let mut markers = Vec::new();
    for index in 0..count {
        if index.checked_rem(PER_MARKER) == Some(0) {
            markers.push(u64::try_from(all.checked_sub(rest.len())?).ok()?);
        }
        *walks = walks.checked_sub(1)?;
        let (len, _, after) = name_len(rest)?;
        let (name, after) = after.split_at_checked(len.into())?;
        // The first names decide for nearly every wrong place.
        if index < CHECKED_NAMES && !tokens.look_like_a_name(name) {
            return None;
        }
        rest = after;
    }
    let len = u64::try_from(all.checked_sub(rest.len())?).ok()?;
    let end = at.checked_add(len)?;
    // 32-bit since v4.20, aligned to four or eight bytes; 64-bit before.
    let agree = |at: u64, width: u64| {
        markers.iter().zip(0u64..).all(|(marker, index)| {
            let found = index.checked_mul(width).and_then(|offset| at.checked_add(offset));
            match width {
                4 => found.and_then(|at| bytes.u32(at)).map(u64::from) == Some(*marker),
                _ => found.and_then(|at| bytes.u64(at)) == Some(*marker),
            }
        })
    };
    let (by_4, by_8) = (end.checked_next_multiple_of(4)?, end.checked_next_multiple_of(8)?);
    (agree(by_8, 4) || agree(by_4, 4) || agree(by_8, 8)).then_some(len)
}
