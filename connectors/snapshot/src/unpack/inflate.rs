//! gzip members, unpacked bit by bit: from the first byte of a file, or from a state that was kept on the way.
//!
//! Owns: the framing of members, the window of 32 KiB that deflate looks back on. Must not know: who wants the bytes.
//! Keeps: every round consumes or produces something, or is an error; checksum and length of each member are compared, where all of it was
//! unpacked; what is kept to go on from is a copy of the decoder, and so good between any two bytes.
//! Source: RFC 1952 (gzip), RFC 1951 (deflate; the decoder is miniz_oxide's, whose state can be copied).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use flate2::Crc;
use memflow_core::Result;
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, TINFL_LZ_DICT_SIZE, decompress,
        inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_IGNORE_ADLER32},
    },
};

use super::{
    pump::Source,
    store::{Packed, Packer},
};
use crate::detect::GZIP_MAGIC;

const HAS_HEADER_CHECKSUM: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Bytes in the ring into which the decoder writes; a power of two, and several times what it looks back on.
pub(super) const RING: usize = 256 << 10;
/// Bytes of the ring before its last window.
const BEFORE: usize = RING - TINFL_LZ_DICT_SIZE;

/// Where a decoder goes on.
pub(super) struct State {
    /// Offset in the file of the next byte.
    pub(super) at: u64,
    /// `None` where the header of a member comes next, or the end.
    decoder: Option<Box<DecompressorOxide>>,
    /// The last [`TINFL_LZ_DICT_SIZE`] bytes.
    window: Packed,
}

impl State {
    /// At the first byte of a file.
    pub(super) fn start() -> Self {
        Self { at: 0, decoder: None, window: Packed::Zeros }
    }
}

/// Unpacks members one after the other.
pub(super) struct Members {
    decoder: Box<DecompressorOxide>,
    ring: Vec<u8>,
    /// Where in the ring the next byte goes.
    to: usize,
    /// A member's header was read, and its end was not reached.
    inside: bool,
    /// The member's bytes so far; `None` when its beginning was not seen.
    crc: Option<Crc>,
}

impl Members {
    /// Begins with the header of a member.
    pub(super) fn new() -> Self {
        Self { decoder: Box::default(), ring: vec![0; RING], to: 0, inside: false, crc: None }
    }

    /// Goes on from a state; the source has to be at [`State::at`].
    ///
    /// # Errors
    /// That the window cannot be unpacked, which is never so.
    pub(super) fn resume(state: &State) -> Result<Self, String> {
        let mut members = Self::new();
        if let Some(decoder) = &state.decoder {
            state.window.unpack(members.ring.get_mut(BEFORE..).unwrap_or_default())?;
            members.decoder = decoder.clone();
            members.inside = true;
        }
        Ok(members)
    }

    /// The state to go on from. Only where the ring was just filled: the window lies at its end.
    pub(super) fn state(&self, source: &Source<'_>, packer: &mut Packer) -> State {
        let at = source.offset();
        if !self.inside {
            return State { at, ..State::start() };
        }
        let window = packer.pack(self.ring.get(BEFORE..).unwrap_or_default());
        State { at, decoder: Some(self.decoder.clone()), window }
    }

    /// The next bytes, up to the end of the ring; `None` after the last member, behind which zeros are padding.
    pub(super) fn next(&mut self, source: &mut Source<'_>) -> Result<Option<&[u8]>> {
        loop {
            if !self.inside && !self.begin(source)? {
                return Ok(None);
            }
            let bytes = source.fill()?;
            let more = if bytes.is_empty() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
            let flags = TINFL_FLAG_IGNORE_ADLER32 | more;
            let (status, consumed, produced) = decompress(&mut self.decoder, bytes, &mut self.ring, self.to, flags);
            source.consume(consumed);
            let from = self.to;
            let to = from.saturating_add(produced);
            let new = self.ring.get(from..to).unwrap_or_default();
            if let Some(crc) = &mut self.crc {
                crc.update(new);
            }
            self.to = to & RING.saturating_sub(1);
            // What came before an end or before damage is good; the next call comes to it again.
            if produced > 0 {
                return Ok(self.ring.get(from..to));
            }
            match status {
                TINFLStatus::Done => {
                    self.inside = false;
                    trailer(source, self.crc.take())?;
                }
                TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput if consumed > 0 => {}
                TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput if more == 0 => {
                    return Err(source.cut_short("the rest of the deflate data"));
                }
                _ => return Err(source.view.bad(source.offset(), "valid deflate data", "damaged data")),
            }
        }
    }

    /// Moves past the header of the next member; false when there is none.
    fn begin(&mut self, source: &mut Source<'_>) -> Result<bool> {
        // Nothing was unpacked yet: the file begins with a member, as it was taken for gzip.
        let first = source.offset() == 0;
        if !first && source.peek()? != Some(GZIP_MAGIC) {
            return match source.only_zeros_left()? {
                true => Ok(false),
                false => Err(source.view.bad(source.offset(), "another gzip member or the end", "something else")),
            };
        }
        header(source)?;
        self.decoder.init();
        self.inside = true;
        self.crc = Some(Crc::new());
        Ok(true)
    }
}

/// Moves past the header of a member.
fn header(source: &mut Source<'_>) -> Result<()> {
    const WHAT: &str = "a gzip header";
    let at = source.offset();
    let [id1, id2, method, flags, ..] = source.array::<10>(WHAT)?;
    if [id1, id2, method] != GZIP_MAGIC {
        return Err(source.view.bad(at, "the gzip magic 1f 8b 08", format!("{id1:02x} {id2:02x} {method:02x}")));
    }
    if flags & RESERVED != 0 {
        return Err(source.view.bad(at.saturating_add(3), "no reserved flags", format!("{flags:#04x}")));
    }
    if flags & HAS_EXTRA != 0 {
        for _ in 0..u16::from_le_bytes(source.array(WHAT)?) {
            source.byte(WHAT)?;
        }
    }
    if flags & HAS_NAME != 0 {
        while source.byte(WHAT)? != 0 {}
    }
    if flags & HAS_COMMENT != 0 {
        while source.byte(WHAT)? != 0 {}
    }
    if flags & HAS_HEADER_CHECKSUM != 0 {
        source.array::<2>(WHAT)?;
    }
    Ok(())
}

/// Reads what follows the data of a member, and compares it with `crc` of the data, if all of it was seen.
fn trailer(source: &mut Source<'_>, crc: Option<Crc>) -> Result<()> {
    let at = source.offset();
    let sum = u32::from_le_bytes(source.array("a gzip member's checksum")?);
    let len = u32::from_le_bytes(source.array("a gzip member's length")?);
    let Some(crc) = crc else { return Ok(()) };
    if sum != crc.sum() {
        return Err(source.view.bad(at, format!("checksum {sum:#010x}"), format!("data with {:#010x}", crc.sum())));
    }
    if len != crc.amount() {
        return Err(source.view.bad(
            at.saturating_add(4),
            format!("{len:#x} bytes (modulo 4 GiB)"),
            format!("{:#x} in the member", crc.amount()),
        ));
    }
    Ok(())
}
