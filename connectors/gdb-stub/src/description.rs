//! What a stub says of its target: architecture and registers, as XML.
//!
//! Owns: [`Description`], reading it, and following inclusions. Must not know: what registers mean, how documents arrive.
//! Keeps: documents are read as a stream of events, without entities and without recursion, so their size bounds what they cost; an
//! inclusion is followed once; there is a limit to documents and to registers.
//! Source: GDB manual, appendix "Target Descriptions" (registers are numbered in order, unless `regnum` says otherwise).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::collections::BTreeSet;

use memflow_core::Result;
use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

/// Most documents of a description.
const MAX_DOCUMENTS: usize = 64;
/// Most registers.
const MAX_REGISTERS: usize = 16 << 10;
/// Widest register, in bits.
const MAX_BITS: u32 = 1 << 16;

/// A register as the stub names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Register {
    /// Its name.
    pub name: String,
    /// Its number in requests.
    pub number: u32,
    /// Its width in bits.
    pub bits: u32,
}

/// What a stub says of its target.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Description {
    /// The architecture, by the name that GDB has for it.
    pub architecture: Option<String>,
    /// The registers, in the order of the documents.
    pub registers: Vec<Register>,
}

/// What a document holds, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    Architecture(String),
    Include(String),
    Register { name: String, bits: u32, number: Option<u32> },
}

impl Description {
    /// Reads a description, beginning with `target.xml`; `document` gives a document by its name.
    ///
    /// The outer error is that of `document`; the inner one says what is wrong with the description.
    ///
    /// # Errors
    /// As `document`.
    pub(crate) fn read(
        mut document: impl FnMut(&str) -> Result<Option<Vec<u8>>>,
    ) -> Result<std::result::Result<Self, String>> {
        let mut description = Self::default();
        let mut seen = BTreeSet::new();
        let mut next_number = 0;
        // What is left to do, the next at the end: an inclusion puts its items where it stood.
        let mut left = vec![Item::Include("target.xml".to_owned())];
        while let Some(item) = left.pop() {
            match item {
                Item::Architecture(name) => description.architecture = description.architecture.or(Some(name)),
                Item::Register { name, bits, number } => {
                    let number = number.unwrap_or(next_number);
                    next_number = number.saturating_add(1);
                    if description.registers.len() >= MAX_REGISTERS {
                        return Ok(Err(format!("more than {MAX_REGISTERS} registers")));
                    }
                    description.registers.push(Register { name, number, bits });
                }
                Item::Include(name) => {
                    if !seen.insert(name.clone()) {
                        return Ok(Err(format!("{} is included twice, or in itself", name.escape_debug())));
                    }
                    if seen.len() > MAX_DOCUMENTS {
                        return Ok(Err(format!("more than {MAX_DOCUMENTS} documents")));
                    }
                    let Some(text) = document(&name)? else {
                        return Ok(Err(format!("there is no {}", name.escape_debug())));
                    };
                    match items(&text) {
                        Ok(items) => left.extend(items.into_iter().rev()),
                        Err(problem) => return Ok(Err(format!("{}: {problem}", name.escape_debug()))),
                    }
                }
            }
        }
        Ok(Ok(description))
    }

    /// The register of this name; names of system registers are upper-case with some stubs.
    pub(crate) fn register(&self, name: &str) -> Option<&Register> {
        self.registers.iter().find(|register| register.name.eq_ignore_ascii_case(name))
    }
}

/// What one document holds.
fn items(text: &[u8]) -> std::result::Result<Vec<Item>, String> {
    let mut reader = Reader::from_reader(text);
    reader.config_mut().check_end_names = false;
    let mut items = Vec::new();
    let mut in_architecture = false;
    loop {
        let event = reader.read_event().map_err(|error| format!("at byte {}: {error}", reader.error_position()))?;
        match event {
            Event::Eof => return Ok(items),
            Event::Start(tag) | Event::Empty(tag) => {
                in_architecture = tag.name().as_ref() == b"architecture";
                items.extend(item(&tag)?);
            }
            Event::End(_) => in_architecture = false,
            Event::Text(name) if in_architecture => {
                let name = name.decode().map_err(|error| error.to_string())?;
                items.push(Item::Architecture(name.trim().to_owned()));
            }
            _ => {}
        }
        if items.len() > MAX_REGISTERS {
            return Err(format!("more than {MAX_REGISTERS} registers"));
        }
    }
}

/// What an element stands for, if it matters here.
fn item(tag: &BytesStart<'_>) -> std::result::Result<Option<Item>, String> {
    match tag.name().local_name().as_ref() {
        b"include" => {
            let href = attribute(tag, "href")?.ok_or("an inclusion without href")?;
            Ok(Some(Item::Include(href)))
        }
        b"reg" => {
            let name = attribute(tag, "name")?.ok_or("a register without name")?;
            let bits = attribute(tag, "bitsize")?.and_then(|bits| bits.parse().ok());
            let bits = bits.filter(|bits| (1..=MAX_BITS).contains(bits)).ok_or("a register without width")?;
            let number = match attribute(tag, "regnum")? {
                Some(text) => Some(text.parse().map_err(|_| "a register whose number is none")?),
                None => None,
            };
            Ok(Some(Item::Register { name, bits, number }))
        }
        _ => Ok(None),
    }
}

/// An attribute of an element.
pub(crate) fn attribute(tag: &BytesStart<'_>, name: &str) -> std::result::Result<Option<String>, String> {
    let found = tag.try_get_attribute(name).map_err(|error| error.to_string())?;
    // Values that need entities are not among those that matter: they stay as they are written.
    Ok(found.map(|found| String::from_utf8_lossy(&found.value).into_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(documents: &[(&str, &str)]) -> std::result::Result<Description, String> {
        let find = |name: &str| documents.iter().find(|(known, _)| *known == name);
        Description::read(|name| Ok(find(name).map(|(_, text)| text.as_bytes().to_vec()))).unwrap()
    }

    #[test]
    fn registers_are_numbered_across_inclusions() {
        let description = read(&[
            (
                "target.xml",
                "<?xml version='1.0'?><!DOCTYPE target SYSTEM 'gdb-target.dtd'><target><architecture>aarch64</architecture>\
                 <reg name='a' bitsize='32'/><xi:include href='b.xml'/><reg name='d' bitsize='64'/></target>",
            ),
            ("b.xml", "<feature><reg name='b' bitsize='8'></reg><reg name='c' bitsize='64' regnum='40'/></feature>"),
        ])
        .unwrap();
        let numbers: Vec<_> =
            description.registers.iter().map(|reg| (reg.name.as_str(), reg.number, reg.bits)).collect();
        assert_eq!(numbers, [("a", 0, 32), ("b", 1, 8), ("c", 40, 64), ("d", 41, 64)]);
        assert_eq!(description.architecture.as_deref(), Some("aarch64"));
        assert_eq!(description.register("C").unwrap().number, 40);
    }

    #[test]
    fn inclusions_do_not_go_round() {
        let cycle = [("target.xml", "<t><xi:include href='a'/></t>"), ("a", "<t><xi:include href='target.xml'/></t>")];
        assert!(read(&cycle).unwrap_err().contains("included twice"));
        assert!(read(&[("target.xml", "<t><xi:include href='a'/></t>")]).unwrap_err().contains("there is no a"));
        let endless = Description::read(|name| Ok(Some(format!("<t><xi:include href='{name}+'/></t>").into_bytes())));
        assert!(endless.unwrap().unwrap_err().contains("documents"));
    }

    #[test]
    fn entities_are_not_expanded() {
        let bomb = "<!DOCTYPE t [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]>\
            <t><architecture>&b;</architecture><reg name='&b;' bitsize='8'/></t>";
        match read(&[("target.xml", bomb)]) {
            Ok(description) => assert!(description.registers.iter().all(|register| register.name == "&b;")),
            Err(problem) => assert!(!problem.contains("aaaa")),
        }
    }

    #[test]
    fn what_is_no_description_is_told() {
        for text in [
            "<t",
            "<reg/>",
            "<reg name='a'/>",
            "<reg name='a' bitsize='0'/>",
            "<reg name='a' bitsize='8' regnum='-1'/>",
        ] {
            assert!(read(&[("target.xml", text)]).is_err(), "{text}");
        }
        let many = "<reg name='a' bitsize='8'/>".repeat(MAX_REGISTERS + 1);
        assert!(read(&[("target.xml", &many)]).unwrap_err().contains("registers"));
    }
}
