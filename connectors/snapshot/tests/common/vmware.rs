//! Writes states of VMware snapshots by the public layout, without any code of the crate.

/// A value of a tag.
pub enum Value<'a> {
    Number(&'a [u8]),
    /// Bytes, behind this much padding.
    Block(&'a [u8], u16),
    Compressed(&'a [u8]),
}

pub fn tag(narrow: bool, name: &str, indices: &[u32], value: &Value<'_>) -> Vec<u8> {
    let size = match value {
        Value::Number(bytes) => bytes.len() as u8,
        Value::Block(..) => 0x3f,
        Value::Compressed(_) => 0x3e,
    };
    let mut out = vec![(indices.len() as u8) << 6 | size, name.len() as u8];
    out.extend(name.as_bytes());
    indices.iter().for_each(|index| out.extend(index.to_le_bytes()));
    let block = |out: &mut Vec<u8>, bytes: &[u8], padding: u16| {
        for _ in 0..2 {
            if narrow {
                out.extend((bytes.len() as u32).to_le_bytes());
            } else {
                out.extend((bytes.len() as u64).to_le_bytes());
            }
        }
        out.extend(padding.to_le_bytes());
        out.extend(vec![0xcc; padding.into()]);
        out.extend(bytes);
    };
    match value {
        Value::Number(bytes) => out.extend(*bytes),
        Value::Block(bytes, padding) => block(&mut out, bytes, *padding),
        Value::Compressed(bytes) => block(&mut out, bytes, 0),
    }
    out
}

pub fn state(magic: u32, groups: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = magic.to_le_bytes().to_vec();
    out.extend(8u32.to_le_bytes());
    out.extend((groups.len() as u32).to_le_bytes());
    let mut at = 12 + 80 * groups.len();
    for (name, tags) in groups {
        let mut field = name.as_bytes().to_vec();
        field.resize(64, 0);
        out.extend(field);
        out.extend((at as u64).to_le_bytes());
        out.extend((tags.len() as u64).to_le_bytes());
        at += tags.len();
    }
    groups.iter().for_each(|(_, tags)| out.extend(tags));
    out
}

pub fn number(name: &str, indices: &[u32], value: u32) -> Vec<u8> {
    tag(false, name, indices, &Value::Number(&value.to_le_bytes()))
}

/// Two regions: page 1 of the guest is page 1 of the memory, pages 0x100000 and following are pages 2 and 3.
pub fn regions() -> Vec<u8> {
    let mut out = number("regionsCount", &[], 2);
    for (index, (guest, memory, pages)) in [(1, 1, 1), (0x10_0000, 2, 2)].into_iter().enumerate() {
        out.extend(number("regionPPN", &[index as u32], guest));
        out.extend(number("regionPageNum", &[index as u32], memory));
        out.extend(number("regionSize", &[index as u32], pages));
    }
    out
}

pub fn cpus() -> Vec<u8> {
    let mut out = tag(false, "CR64", &[0, 3], &Value::Number(&0x1a_d000u64.to_le_bytes()));
    out.extend(tag(false, "CR64", &[1, 3], &Value::Number(&0x1_2345_6000u64.to_le_bytes())));
    out.extend(tag(false, "rip", &[0], &Value::Number(&0xffff_f800_1234_5678u64.to_le_bytes())));
    out.extend(tag(false, "name", &[], &Value::Number(b"something longer than eight")));
    out.extend([0, 0]);
    out.extend(b"what comes after the end of a group");
    out
}
