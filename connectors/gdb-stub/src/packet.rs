//! Packets of the remote protocol: `$payload#checksum` and what stands between them.
//!
//! Owns: framing, checksums, run lengths and escapes. Must not know: streams, what packets mean.
//! Keeps: a packet is never longer than the limit, whatever run lengths say; a damaged one is told as such and its bytes are gone.
//! Source: GDB manual, appendix "GDB Remote Serial Protocol", "Overview" and "Notification Packets".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use crate::hex;

/// Bytes between packets that are put up with: some stubs print there.
const MAX_NOISE: usize = 4096;

/// What arrives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// `+`: the last packet arrived.
    Ack,
    /// `-`: the last packet arrived damaged.
    Nack,
    /// A packet; run lengths are expanded, escapes are not (see [`unescape`]).
    Packet(Vec<u8>),
    /// A packet whose checksum is wrong.
    Damaged,
}

/// What no stub says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Violation {
    /// A packet longer than the limit.
    TooLong,
    /// A run length without a byte before it, or that is none.
    RunLength,
    /// A checksum that is no number.
    Checksum,
    /// More than [`MAX_NOISE`] bytes that belong to no packet.
    Noise,
}

impl Violation {
    /// What it is, in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::TooLong => "sent a packet without an end",
            Self::RunLength => "sent a run length that is none",
            Self::Checksum => "sent a checksum that is no number",
            Self::Noise => "sends bytes that are no packets; it is no GDB stub",
        }
    }
}

/// Puts a packet behind `out`; bytes that have a meaning of their own are escaped.
pub(crate) fn encode(payload: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    let start = out.len();
    for &byte in payload {
        if matches!(byte, b'$' | b'#' | b'}' | b'*') {
            out.extend([b'}', byte ^ 0x20]);
        } else {
            out.push(byte);
        }
    }
    let sum = out.iter().skip(start).fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    out.extend([b'#', hex::digit_of(sum >> 4), hex::digit_of(sum & 15)]);
}

/// How many bytes [`encode`] makes of one.
pub(crate) fn encoded_len(byte: u8) -> usize {
    if matches!(byte, b'$' | b'#' | b'}' | b'*') { 2 } else { 1 }
}

/// Binary data as it was before it was escaped; `None` when an escape has nothing behind it.
pub(crate) fn unescape(data: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(data.len());
    let mut bytes = data.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'}' { bytes.next()? ^ 0x20 } else { byte });
    }
    Some(plain)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between packets.
    Idle,
    /// In a packet.
    Body,
    /// Behind a `*`.
    Run,
    /// Behind the `#`.
    High,
    /// Behind the first digit, which had this value.
    Low(u8),
}

/// Takes bytes as they come and gives frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// True in a packet that nobody asked for (`%`): it is taken and dropped.
    notification: bool,
    body: Vec<u8>,
    sum: u8,
    noise: usize,
    limit: usize,
}

impl Decoder {
    /// A decoder for packets of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { state: State::Idle, notification: false, body: Vec::new(), sum: 0, noise: 0, limit }
    }

    /// Takes bytes up to the end of the next frame; how many it took.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), Violation> {
        let mut taken = 0_usize;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Body {
                let special = memchr::memchr3(b'$', b'#', b'*', rest).unwrap_or(rest.len());
                let plain = rest.get(..special).unwrap_or_default();
                if self.body.len().saturating_add(plain.len()) > self.limit {
                    return Err(Violation::TooLong);
                }
                self.sum = plain.iter().fold(self.sum, |sum, byte| sum.wrapping_add(*byte));
                self.body.extend_from_slice(plain);
                taken = taken.saturating_add(plain.len());
            }
            let Some(&byte) = bytes.get(taken) else { break };
            taken = taken.saturating_add(1);
            if let Some(frame) = self.push(byte)? {
                return Ok((taken, Some(frame)));
            }
        }
        Ok((taken, None))
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// The byte cannot stand here; nothing that follows can be trusted.
    fn push(&mut self, byte: u8) -> Result<Option<Frame>, Violation> {
        match self.state {
            State::Idle => return self.between(byte),
            // The end of the packet before was lost; GDB begins anew as well.
            _ if byte == b'$' => self.begin(false),
            State::Body if byte == b'#' => self.state = State::High,
            State::Body if byte == b'*' => {
                self.sum = self.sum.wrapping_add(byte);
                self.state = State::Run;
            }
            State::Body => {
                self.sum = self.sum.wrapping_add(byte);
                self.append(byte, 1)?;
            }
            State::Run => {
                self.sum = self.sum.wrapping_add(byte);
                let more = byte.checked_sub(29).filter(|_| (b' '..=b'~').contains(&byte));
                let (Some(more), Some(&last)) = (more, self.body.last()) else { return Err(Violation::RunLength) };
                self.append(last, usize::from(more))?;
                self.state = State::Body;
            }
            State::High => self.state = State::Low(hex::digit(byte).ok_or(Violation::Checksum)?),
            State::Low(high) => {
                let low = hex::digit(byte).ok_or(Violation::Checksum)?;
                self.state = State::Idle;
                self.noise = 0;
                let body = std::mem::take(&mut self.body);
                return Ok(match (high << 4 | low) == self.sum {
                    _ if self.notification => None,
                    true => Some(Frame::Packet(body)),
                    false => Some(Frame::Damaged),
                });
            }
        }
        Ok(None)
    }

    fn between(&mut self, byte: u8) -> Result<Option<Frame>, Violation> {
        match byte {
            b'+' => return Ok(Some(Frame::Ack)),
            b'-' => return Ok(Some(Frame::Nack)),
            b'$' => self.begin(false),
            b'%' => self.begin(true),
            _ => {
                self.noise = self.noise.saturating_add(1);
                if self.noise > MAX_NOISE {
                    return Err(Violation::Noise);
                }
            }
        }
        Ok(None)
    }

    fn begin(&mut self, notification: bool) {
        (self.state, self.notification, self.sum) = (State::Body, notification, 0);
        self.body.clear();
    }

    fn append(&mut self, byte: u8, times: usize) -> Result<(), Violation> {
        let len = self.body.len().saturating_add(times);
        if len > self.limit {
            return Err(Violation::TooLong);
        }
        self.body.resize(len, byte);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn frames(bytes: &[u8]) -> Result<Vec<Frame>, Violation> {
        let mut decoder = Decoder::new(1000);
        let single: Result<Vec<_>, _> = bytes.iter().map(|byte| decoder.push(*byte)).collect();
        let single = single.map(|frames| frames.into_iter().flatten().collect::<Vec<_>>());
        let (mut decoder, mut many, mut rest) = (Decoder::new(1000), Vec::new(), bytes);
        let many = loop {
            match decoder.take(rest) {
                Ok((_, None)) => break Ok(many),
                Ok((taken, Some(frame))) => {
                    many.push(frame);
                    rest = rest.get(taken..).unwrap();
                }
                Err(violation) => break Err(violation),
            }
        };
        assert_eq!(single, many);
        single
    }

    fn packet(text: &[u8]) -> Frame {
        Frame::Packet(text.to_vec())
    }

    #[test]
    fn every_byte_survives_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        let mut wire = Vec::new();
        encode(&all, &mut wire);
        let frames = frames(&wire).unwrap();
        let escaped =
            frames.iter().find_map(|frame| if let Frame::Packet(payload) = frame { Some(payload) } else { None });
        assert_eq!(unescape(escaped.unwrap()).unwrap(), all);
        assert_eq!(wire.len(), all.iter().map(|byte| encoded_len(*byte)).sum::<usize>() + 4);
    }

    #[test]
    fn run_lengths_repeat_the_byte_before() {
        // The manual's example: `0* ` are four zeros.
        assert_eq!(frames(b"$0* #7a").unwrap(), [packet(b"0000")]);
        assert_eq!(frames(b"$* #4a"), Err(Violation::RunLength));
        assert_eq!(frames(b"$0*\x1f#00"), Err(Violation::RunLength));
    }

    #[test]
    fn damage_is_told_and_does_not_spread() {
        assert_eq!(frames(b"$OK#9b$OK#9a").unwrap(), [Frame::Damaged, packet(b"OK")]);
        assert_eq!(frames(b"$lost$OK#9a").unwrap(), [packet(b"OK")]);
        assert_eq!(frames(b"$OK#zz"), Err(Violation::Checksum));
    }

    #[test]
    fn notifications_and_noise_are_passed_over() {
        assert_eq!(frames(b"hello +%Stop:T05#00-$#00").unwrap(), [Frame::Ack, Frame::Nack, packet(b"")]);
        assert_eq!(frames(&[b'.'; MAX_NOISE + 1]), Err(Violation::Noise));
    }

    #[test]
    fn run_lengths_do_not_outgrow_the_limit() {
        let bomb = [b"$0".to_vec(), b"*~".repeat(11)].concat();
        assert_eq!(frames(&bomb), Err(Violation::TooLong));
    }

    #[test]
    fn escape_at_the_end_is_nothing() {
        assert_eq!(unescape(b"ab}"), None);
    }
}
