//! The machine inside the guest `nested`: where its RAM lies, and what it said about itself.
//!
//! Owns: `inner/` in that guest's folder, and the file in which the monitor says where the RAM is.
//! Must not know: how the monitor works (`guest/vmm.c`), how memory is read.
//! Keeps: the inner machine does not run once its truth is taken, so the truth is that of the capture, registers included.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Result, WithPath, unexpected};
use crate::truth::{Truth, unpack};

/// The monitor's file and the inner truth's stream, as paths in the outer guest.
const MACHINE: &str = "run/inner/machine";
const STREAM: &str = "run/inner/truth";

/// A machine whose RAM is a mapping of a process.
#[derive(Debug, Clone)]
pub struct Inner {
    /// What the inner machine said about itself.
    pub truth: Truth,
    /// Pid of the process in the outer guest.
    pub pid: u32,
    /// First guest-physical address of the inner machine's RAM.
    pub phys: u64,
    /// Where that lies in the process.
    pub virt: u64,
    /// Bytes of RAM: `virt..virt + len` is the whole of it, in order.
    pub len: u64,
    /// CR3 of the inner machine's CPU.
    pub cr3: u64,
}

impl Inner {
    pub(crate) fn load(guest: &Path) -> Result<Self> {
        let outer = Truth::load(guest.join("truth"))?;
        let text = outer.text(MACHINE)?;
        let machine = Machine::parse(&text)?;
        let pid = machine.number("pid")?;
        Ok(Self {
            truth: Truth::load(guest.join("inner"))?,
            pid: u32::try_from(pid).map_err(|_| unexpected(MACHINE, "a 32-bit pid", &text))?,
            phys: machine.number("phys")?,
            virt: machine.number("virt")?,
            len: machine.number("len")?,
            cr3: machine.number("cr3")?,
        })
    }
}

/// The monitor's file: lines of a name and a hexadecimal number.
struct Machine<'a> {
    text: &'a str,
    values: BTreeMap<&'a str, u64>,
}

impl<'a> Machine<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            let pair =
                line.split_once(' ').and_then(|(name, value)| Some((name, u64::from_str_radix(value, 16).ok()?)));
            let (name, value) = pair.ok_or_else(|| unexpected(MACHINE, "a name and a hexadecimal number", line))?;
            values.insert(name, value);
        }
        Ok(Self { text, values })
    }

    fn number(&self, name: &str) -> Result<u64> {
        let value = self.values.get(name).copied();
        value.ok_or_else(|| unexpected(format!("{MACHINE}, {name}"), "a line of that name", self.text))
    }
}

/// Unpacks the inner truth that a guest's truth holds, and takes it out there.
pub(crate) fn unpack_truth(guest: &Path) -> Result<()> {
    let stream = guest.join("truth").join(STREAM);
    let bytes = std::fs::read(&stream).at(&stream)?;
    unpack(&bytes, &guest.join("inner"))?;
    std::fs::remove_file(&stream).at(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_hexadecimal_and_all_have_to_be_there() {
        let machine = Machine::parse("pid 96\nvirt 7f0000000000\n").unwrap();
        assert_eq!((machine.number("pid").unwrap(), machine.number("virt").unwrap()), (150, 0x7f00_0000_0000));
        assert!(machine.number("cr3").unwrap_err().to_string().contains("run/inner/machine, cr3"));
        assert!(Machine::parse("pid 96\nvirt -\n").is_err());
        assert!(Machine::parse("pid\n").is_err());
    }
}
