//! The compressed symbol table of the kernel (kallsyms): names made of tokens, values in one of four encodings.
//!
//! Owns: the format; a symbol is asked for by its index. Must not know: where the tables lie, which symbols matter.
//! Keeps: every name was walked once, so its bytes and expanded length are known to be within limits.
//! Source: Linux `scripts/kallsyms.c` and `kernel/kallsyms.c` (v4.6 to v7.0); lengths above 127 since v6.1, place-relative values since v7.0.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::{borrow::Cow, sync::Arc};

use memflow_core::{Error, Result, VirtAddr};

use crate::bytes::Bytes;

/// Most symbols a table may have; a kernel with every option has below half a million.
pub(super) const MAX_SYMBOLS: u32 = 1 << 22;
/// Longest expanded name with its type letter. `KSYM_NAME_LEN` is 512.
const MAX_NAME: usize = 1024;
/// Letters that `nm` gives to symbols that are in an image.
const TYPE_LETTERS: &[u8] = b"AaBbDdGgRrSsTtVvWwNn?";
/// Multiplier of the names' hash, odd.
const HASH_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How a table of values is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    /// 64-bit addresses (until v6.11 where the architecture asked for it).
    Absolute,
    /// 32-bit offsets from a base.
    Relative,
    /// 32-bit: from zero on absolute (per-CPU variables), below zero `base - 1 - value` (x86, v4.6 to v6.14).
    AbsolutePercpu,
    /// 32-bit signed offsets from the place of the offset itself (v7.0).
    PlaceRelative,
}

/// The values of all symbols.
pub(super) struct Values {
    pub(super) encoding: Encoding,
    /// The table as it lies in memory.
    pub(super) bytes: Arc<Vec<u8>>,
    /// The base of relative encodings; for place-relative ones the address of the table.
    pub(super) base: u64,
}

impl Values {
    /// Bytes of one value.
    pub(super) fn width(encoding: Encoding) -> u64 {
        if encoding == Encoding::Absolute { 8 } else { 4 }
    }

    /// The value of symbol `index`, as `/proc/kallsyms` prints it.
    pub(super) fn get(&self, index: u32) -> Option<VirtAddr> {
        let at = u64::from(index).checked_mul(Self::width(self.encoding))?;
        let bytes = Bytes(&self.bytes);
        if self.encoding == Encoding::Absolute {
            return bytes.u64(at).map(VirtAddr::new);
        }
        let raw = bytes.i32(at)?;
        let extended = i64::from(raw).cast_unsigned();
        Some(VirtAddr::new(match self.encoding {
            Encoding::AbsolutePercpu if raw >= 0 => extended,
            Encoding::AbsolutePercpu => self.base.wrapping_sub(1).wrapping_sub(extended),
            Encoding::PlaceRelative => self.base.wrapping_add(at).wrapping_add(extended),
            Encoding::Relative | Encoding::Absolute => self.base.wrapping_add(raw.cast_unsigned().into()),
        }))
    }
}

/// The tokens that compressed names are made of.
#[derive(Clone)]
pub(super) struct Tokens {
    texts: Vec<Vec<u8>>,
    sums: Vec<TokenSum>,
}

/// What is asked of a token's text again and again.
#[derive(Clone, Copy)]
struct TokenSum {
    /// Hash of the text.
    whole: u64,
    /// Hash without its first byte.
    tail: u64,
    /// `HASH_STEP` to the power of its length.
    power: u64,
    len: usize,
    /// Starts with a type letter.
    is_letter: bool,
    /// Not empty, all printable.
    is_text: bool,
}

impl Tokens {
    /// Reads the 256 tokens.
    pub(super) fn parse(table: &[u8], index: &[u8]) -> Option<Self> {
        let texts: Vec<Vec<u8>> = (0..256u64)
            .map(|token| {
                let at = Bytes(index).u16(token.checked_mul(2)?)?;
                Bytes(table).c_string(at.into()).filter(|text| text.len() < MAX_NAME).map(<[u8]>::to_vec)
            })
            .collect::<Option<_>>()?;
        let sums = texts
            .iter()
            .map(|text| TokenSum {
                whole: hash(text),
                tail: hash(text.get(1..).unwrap_or_default()),
                power: text.iter().fold(1, |power: u64, _| power.wrapping_mul(HASH_STEP)),
                len: text.len(),
                is_letter: text.first().is_some_and(|letter| TYPE_LETTERS.contains(letter)),
                is_text: !text.is_empty() && text.iter().all(u8::is_ascii_graphic),
            })
            .collect();
        Some(Self { texts, sums })
    }
}

impl Tokens {
    /// True when each text starts where the one before it ended.
    pub(super) fn are_consecutive(&self, index: &[u8]) -> bool {
        let mut at = 0u64;
        self.texts.iter().zip(0u64..).all(|(text, token)| {
            let found = token.checked_mul(2).and_then(|offset| Bytes(index).u16(offset));
            let agrees = found.map(u64::from) == Some(at);
            at = at.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX)).saturating_add(1);
            agrees
        })
    }

    /// True when a compressed name expands to a type letter and printable text, and is not longer than any name.
    pub(super) fn look_like_a_name(&self, name: &[u8]) -> bool {
        let sum = |token: &u8| self.sums.get(usize::from(*token));
        name.len() < MAX_NAME
            && name.first().and_then(sum).is_some_and(|first| first.is_letter)
            && name.iter().all(|token| sum(token).is_some_and(|sum| sum.is_text))
    }
}

/// The hash of a name: combines from the hashes of its tokens, so that names need not be expanded to be indexed.
pub(super) fn hash(name: &[u8]) -> u64 {
    name.iter().fold(0, |hash, byte| step(hash, HASH_STEP, u64::from(*byte).wrapping_add(1)))
}

fn step(hash: u64, power: u64, next: u64) -> u64 {
    hash.wrapping_mul(power).wrapping_add(next)
}

/// The names of all symbols, compressed.
pub(super) struct Names {
    bytes: Arc<Vec<u8>>,
    tokens: Tokens,
    /// Offset of each name's tokens in `bytes`, and their number.
    places: Vec<(u32, u16)>,
    /// Hash of each expanded name, without the type letter.
    hashes: Vec<u64>,
}

pub(super) fn corrupt(
    address: VirtAddr,
    expected: impl Into<Cow<'static, str>>,
    found: impl Into<Cow<'static, str>>,
) -> Error {
    Error::Corrupt { what: "kallsyms", address: address.into(), expected: expected.into(), found: found.into() }
}

impl Names {
    /// Walks `count` names from the start of `bytes`, which were read from `at`.
    pub(super) fn parse(at: VirtAddr, bytes: Arc<Vec<u8>>, count: u32, tokens: Tokens) -> Result<Self> {
        if count > MAX_SYMBOLS {
            return Err(corrupt(at, format!("at most {MAX_SYMBOLS} symbols"), format!("{count}")));
        }
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        // A name takes two bytes or more: the capacity is bounded by the bytes that are there.
        let capacity = wanted.min(bytes.len());
        let mut places = Vec::with_capacity(capacity);
        let mut hashes = Vec::with_capacity(capacity);
        let mut rest: &[u8] = &bytes;
        let mut offset = 0u32;
        for index in 0..count {
            let place = at.wrapping_add(offset.into());
            let ends = || corrupt(place, format!("name {index} of {count}"), "the end of the table");
            let (len, header, after) = name_len(rest).ok_or_else(ends)?;
            let (name, after) = after.split_at_checked(len.into()).ok_or_else(ends)?;
            let (hash, expanded) = sum(&tokens, name)
                .ok_or_else(|| corrupt(place, format!("name {index} with a type letter"), "an empty name"))?;
            if expanded > MAX_NAME {
                return Err(corrupt(
                    place,
                    format!("a name of at most {MAX_NAME} bytes"),
                    format!("{expanded} bytes for symbol {index}"),
                ));
            }
            places.push((offset.saturating_add(header), len));
            hashes.push(hash);
            offset = offset.saturating_add(header).saturating_add(len.into());
            rest = after;
        }
        Ok(Self { bytes, tokens, places, hashes })
    }

    /// Number of symbols.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// Hashes of the names, in order.
    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// Expands name `index` into `text`: the type letter first.
    pub(super) fn expand(&self, index: u32, text: &mut Vec<u8>) -> Option<()> {
        text.clear();
        let (offset, len) = *self.places.get(usize::try_from(index).ok()?)?;
        for token in Bytes(&self.bytes).slice(offset.into(), len.into())? {
            text.extend_from_slice(self.tokens.texts.get(usize::from(*token))?);
        }
        Some(())
    }
}

/// Length of the name that `bytes` start with, bytes of that length itself, and what follows them.
pub(super) fn name_len(bytes: &[u8]) -> Option<(u16, u32, &[u8])> {
    let (low, rest) = bytes.split_first()?;
    let low = u16::from(*low);
    if low < 0x80 {
        return Some((low, 1, rest));
    }
    let (high, rest) = rest.split_first()?;
    Some(((low & 0x7f) | (u16::from(*high) << 7), 2, rest))
}

/// Hash of the expanded name without its type letter, and length with it.
fn sum(tokens: &Tokens, name: &[u8]) -> Option<(u64, usize)> {
    let (first, rest) = name.split_first()?;
    let first = tokens.sums.get(usize::from(*first)).filter(|first| first.len != 0)?;
    let mut hash = first.tail;
    let mut len = first.len;
    for token in rest {
        let token = tokens.sums.get(usize::from(*token))?;
        hash = step(hash, token.power, token.whole);
        len = len.saturating_add(token.len);
    }
    Some((hash, len))
}
