//! The hexdump that people expect: that of `hexdump -C`.
//!
//! Owns: the layout: address, sixteen bytes in two groups, their ASCII; repeated lines are one `*`; the last line is the end address.
//! Must not know: where bytes come from. Keeps: a byte that could not be read is `??`, never a number.

use std::io::{self, Write};

/// Bytes of one line.
const WIDTH: usize = 16;

/// Whether repeated lines are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeats {
    /// As one `*`.
    Squeezed,
    /// All of them.
    Shown,
}

/// A hexdump that is fed piece by piece.
#[derive(Debug)]
pub(crate) struct Hexdump {
    // Address of the first byte of `line`.
    address: u64,
    digits: usize,
    repeats: Repeats,
    line: Vec<Option<u8>>,
    previous: Vec<Option<u8>>,
    squeezing: bool,
}

impl Hexdump {
    /// A dump that starts at `address` and will be `len` bytes long.
    pub(crate) fn new(address: u64, len: u64, repeats: Repeats) -> Self {
        let digits = if address.saturating_add(len) > u32::MAX.into() { 16 } else { 8 };
        Self { address, digits, repeats, line: Vec::new(), previous: Vec::new(), squeezing: false }
    }

    /// Adds bytes; `None` for one that could not be read.
    pub(crate) fn extend(
        &mut self,
        out: &mut dyn Write,
        bytes: impl IntoIterator<Item = Option<u8>>,
    ) -> io::Result<()> {
        for byte in bytes {
            self.line.push(byte);
            if self.line.len() == WIDTH {
                self.finish_line(out)?;
            }
        }
        Ok(())
    }

    /// Ends the dump with the line that is begun and the address after the last byte.
    pub(crate) fn finish(mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.line.is_empty() {
            self.finish_line(out)?;
        }
        writeln!(out, "{:0digits$x}", self.address, digits = self.digits)
    }

    fn finish_line(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.repeats == Repeats::Squeezed && self.line == self.previous {
            if !self.squeezing {
                writeln!(out, "*")?;
            }
            self.squeezing = true;
        } else {
            self.squeezing = false;
            writeln!(out, "{}", self.render())?;
        }
        // Wraps only for the very last line of the address space, whose end is 2^64.
        self.address = self.address.wrapping_add(self.line.len() as u64);
        std::mem::swap(&mut self.line, &mut self.previous);
        self.line.clear();
        Ok(())
    }

    fn render(&self) -> String {
        let mut text = format!("{:0digits$x} ", self.address, digits = self.digits);
        for index in 0..WIDTH {
            if index % (WIDTH / 2) == 0 {
                text.push(' ');
            }
            text.push_str(&match self.line.get(index) {
                Some(Some(byte)) => format!("{byte:02x} "),
                Some(None) => "?? ".to_owned(),
                None => "   ".to_owned(),
            });
        }
        text.push_str(" |");
        text.extend(self.line.iter().map(|byte| match byte {
            Some(byte @ 0x20..=0x7e) => char::from(*byte),
            Some(_) => '.',
            None => ' ',
        }));
        text.push('|');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(address: u64, bytes: &[Option<u8>], repeats: Repeats) -> String {
        let mut out = Vec::new();
        let mut dump = Hexdump::new(address, bytes.len() as u64, repeats);
        // In two pieces, so that lines are put together from both.
        let (first, second) = bytes.split_at(bytes.len() / 3);
        dump.extend(&mut out, first.iter().copied()).unwrap();
        dump.extend(&mut out, second.iter().copied()).unwrap();
        dump.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// What `printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0>\0' | hexdump -C` prints.
    #[test]
    fn looks_as_hexdump_does() {
        let bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0>\0".map(Some);
        assert_eq!(
            dump(0, &bytes, Repeats::Squeezed),
            "00000000  7f 45 4c 46 02 01 01 00  00 00 00 00 00 00 00 00  |.ELF............|\n\
             00000010  03 00 3e 00                                       |..>.|\n\
             00000014\n"
        );
    }

    #[test]
    fn repeated_lines_are_one_star() {
        let bytes = [Some(0); 64];
        let zeros = "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|";
        assert_eq!(dump(0x1000, &bytes, Repeats::Squeezed), format!("00001000  {zeros}\n*\n00001040\n"));
        assert_eq!(dump(0x1000, &bytes, Repeats::Shown).lines().count(), 5);
    }

    #[test]
    fn unreadable_is_not_zero() {
        let mut bytes = vec![Some(0); 16];
        bytes.extend([None; 16]);
        let text = dump(0xffff_8000_0000_0000, &bytes, Repeats::Squeezed);
        let second = text.lines().nth(1).unwrap();
        assert_eq!(second, "ffff800000000010  ?? ?? ?? ?? ?? ?? ?? ??  ?? ?? ?? ?? ?? ?? ?? ??  |                |");
    }

    #[test]
    fn nothing_is_just_the_address() {
        assert_eq!(dump(5, &[], Repeats::Squeezed), "00000005\n");
    }
}
