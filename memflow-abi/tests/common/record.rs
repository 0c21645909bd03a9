//! A record of the ABI, read back from its text.
//!
//! Owns: the parser, and what a later version may do to an earlier one. Must not know: where records lie.

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) structures: Vec<Structure>,
    pub(crate) numbers: Vec<Numbers>,
}

/// A structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Structure {
    pub(crate) name: String,
    pub(crate) grows: bool,
    pub(crate) size: usize,
    pub(crate) align: usize,
    pub(crate) fields: Vec<Field>,
}

/// A field of a structure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// Numbers with names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Numbers {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) values: Vec<(String, u64)>,
}

impl Structure {
    /// The word for what it is.
    pub(crate) fn kind(&self) -> &'static str {
        if self.grows { "growing" } else { "fixed" }
    }
}

impl Record {
    /// Reads a record; the text is one of the tree, so a bad one is a defect of the tree.
    pub(crate) fn parse(text: &str) -> Self {
        let mut record = Self { major: 0, minor: 0, structures: Vec::new(), numbers: Vec::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |index: usize| words[index].parse::<usize>().unwrap();
            match (line.starts_with(' '), words.as_slice()) {
                (false, []) => {}
                (false, ["abi", version]) => {
                    let (major, minor) = version.split_once('.').unwrap();
                    (record.major, record.minor) = (major.parse().unwrap(), minor.parse().unwrap());
                }
                (false, [kind @ ("growing" | "fixed"), name, "size", _, "align", _]) => {
                    let (name, grows) = ((*name).to_owned(), *kind == "growing");
                    let fields = Vec::new();
                    record.structures.push(Structure { name, grows, size: number(3), align: number(5), fields });
                }
                (false, ["numbers", name, "size", _]) => {
                    record.numbers.push(Numbers { name: (*name).to_owned(), size: number(3), values: Vec::new() });
                }
                (true, [name, "offset", _, "size", _]) => {
                    let field = Field { name: (*name).to_owned(), offset: number(2), size: number(4) };
                    record.structures.last_mut().unwrap().fields.push(field);
                }
                (true, [name, value]) => {
                    record.numbers.last_mut().unwrap().values.push(((*name).to_owned(), value.parse().unwrap()));
                }
                _ => panic!("no line of a record: {line}"),
            }
        }
        record
    }

    /// What a later version does that it may not do to this one.
    pub(crate) fn broken_by(&self, later: &Self) -> Vec<String> {
        let mut broken = Vec::new();
        if later.major != self.major || later.minor <= self.minor {
            broken.push(format!("{}.{} is no later minor version", later.major, later.minor));
        }
        for structure in &self.structures {
            let name = &structure.name;
            match later.structures.iter().find(|later| later.name == *name) {
                None => broken.push(format!("{name} is gone")),
                Some(later) if !structure.grows && later != structure => broken.push(format!("fixed {name} changed")),
                Some(later) => broken.extend(structure.not_a_prefix_of(later).map(|what| format!("{name}{what}"))),
            }
        }
        for numbers in &self.numbers {
            let name = &numbers.name;
            let Some(later) = later.numbers.iter().find(|later| later.name == *name) else {
                broken.push(format!("numbers {name} are gone"));
                continue;
            };
            if later.size != numbers.size {
                broken.push(format!("numbers {name} have another size"));
            }
            let gone = numbers.values.iter().filter(|value| !later.values.contains(value));
            broken.extend(gone.map(|(value, _)| format!("{name}::{value} is gone or has another value")));
            let taken = |new: &&(String, u64)| numbers.values.iter().any(|old| old.1 == new.1 && old.0 != new.0);
            let twice = later.values.iter().filter(taken);
            broken.extend(twice.map(|(value, number)| format!("{name}::{value} is {number}, which has a name")));
        }
        broken
    }
}

impl Structure {
    /// The first thing in which a later form is not this one with fields appended.
    fn not_a_prefix_of(&self, later: &Self) -> Option<String> {
        if later.grows != self.grows {
            return Some(" grows in one version only".to_owned());
        }
        if later.align != self.align {
            return Some(" has another alignment".to_owned());
        }
        if let Some(field) = self
            .fields
            .iter()
            .enumerate()
            .find_map(|(at, field)| (later.fields.get(at) != Some(field)).then_some(field))
        {
            return Some(format!(".{} changed", field.name));
        }
        // The end of the earlier structure may be padding, which its makers count in its size and leave as it is.
        let appended = &later.fields[self.fields.len()..];
        if let Some(field) = appended.iter().find(|field| field.offset < self.size) {
            return Some(format!(".{} lies in the padding of the earlier structure", field.name));
        }
        (later.size < self.size).then(|| " became smaller".to_owned())
    }
}
