//! Type information built record by record, for tests.
//!
//! Owns: the encoding of every kind. Must not know: the reader.
//! Source: Linux `Documentation/bpf/btf.rst`, written independently of what reads it.

/// A section under construction. Each method returns the id of the type it made.
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

/// Name, type, offset in bits, width in bits if it is a bit-field.
pub(crate) type Member<'a> = (&'a str, u32, u32, u32);

impl Builder {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], count: 0 }
    }

    pub(crate) fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    pub(crate) fn record(
        &mut self,
        name: &str,
        kind: u32,
        flag: bool,
        vlen: usize,
        size_or_type: u32,
        data: &[u32],
    ) -> u32 {
        let name = self.name(name);
        self.words(&[name, u32::from(flag) << 31 | kind << 24 | vlen as u32, size_or_type]);
        self.words(data);
        self.count += 1;
        self.count
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32, bits: u32) -> u32 {
        self.record(name, 1, false, 0, bytes, &[bits])
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.record("", 2, false, 0, to, &[])
    }

    pub(crate) fn array(&mut self, element: u32, index: u32, count: u32) -> u32 {
        self.record("", 3, false, 0, 0, &[element, index, count])
    }

    pub(crate) fn aggregate(&mut self, kind: u32, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        let flag = members.iter().any(|member| member.3 != 0);
        let data: Vec<u32> = members
            .iter()
            .flat_map(|(name, id, bit, width)| [self.name(name), *id, if flag { width << 24 | bit } else { *bit }])
            .collect();
        self.record(name, kind, flag, members.len(), size, &data)
    }

    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        self.aggregate(4, name, size, members)
    }

    pub(crate) fn union(&mut self, name: &str, size: u32, members: &[Member<'_>]) -> u32 {
        self.aggregate(5, name, size, members)
    }

    pub(crate) fn modifier(&mut self, kind: u32, name: &str, to: u32) -> u32 {
        self.record(name, kind, false, 0, to, &[])
    }

    pub(crate) fn section(&self) -> Vec<u8> {
        self.section_with_header(24)
    }

    pub(crate) fn section_with_header(&self, header: u32) -> Vec<u8> {
        let types = self.types.len() as u32;
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [header, 0, types, types, self.strings.len() as u32] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(header as usize, 0xee);
        bytes.extend(&self.types);
        bytes.extend(&self.strings);
        bytes
    }
}
