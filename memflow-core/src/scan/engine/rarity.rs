//! How often bytes stand in memory, as far as that can be said without looking at it.
//!
//! Owns: a small model of what follows what. Must not know: patterns, engines.
//! Keeps: only the choice of an engine and of its grams depends on it, never what is found.
//!
//! The numbers were counted in the pages of two Linux guests (6.1 and 6.12, x86-64, 256 and 512 MiB) that are not zero throughout, and rounded.

/// Kinds of bytes that stand for each other.
const KINDS: usize = 7;
/// How many bytes are of each kind.
const MEMBERS: [f32; KINDS] = [1.0, 2.0, 8.0, 28.0, 31.0, 19.0, 167.0];
/// How many of all bytes are of each kind.
const SHARE: [f32; KINDS] = [0.27, 0.11, 0.04, 0.15, 0.07, 0.10, 0.26];
/// How many bytes behind one of the kind of the row are of the kind of the column.
const NEXT: [[f32; KINDS]; KINDS] = [
    [0.79, 0.005, 0.034, 0.024, 0.017, 0.047, 0.083],
    [0.042, 0.80, 0.01, 0.012, 0.011, 0.052, 0.073],
    [0.34, 0.006, 0.083, 0.055, 0.066, 0.13, 0.32],
    [0.037, 0.006, 0.02, 0.64, 0.058, 0.075, 0.164],
    [0.063, 0.01, 0.052, 0.12, 0.233, 0.172, 0.35],
    [0.071, 0.045, 0.061, 0.107, 0.098, 0.223, 0.395],
    [0.075, 0.05, 0.066, 0.092, 0.089, 0.128, 0.50],
];
/// How many bytes are followed by the same one.
const AGAIN: [f32; KINDS] = [0.79, 0.80, 0.01, 0.08, 0.03, 0.01, 0.02];

/// Zero; what fills; small numbers; small letters and what stands among them; capitals and digits; common in code; others.
const fn kind(byte: u8) -> usize {
    match byte {
        0 => 0,
        0xff | 0xcc => 1,
        1..=8 => 2,
        b'.' | b'_' | b'a'..=b'z' => 3,
        0x48 | 0x89 | 0x8b | 0x0f | 0x24 | 0xe8 | 0x85 | 0x4c | 0x44 | 0x41 | 0x83 | 0x49 | 0x88 | 0x80 | 0x81 => 5,
        0x10 | 0x20 | 0x40 | 0xc0 => 5,
        b'0'..=b'9' | b'B'..=b'Z' => 4,
        _ => 6,
    }
}

/// The part of all places at which this byte stands, roughly.
pub(super) fn of_byte(byte: u8) -> f32 {
    let kind = kind(byte);
    SHARE[kind] / MEMBERS[kind]
}

/// The part of all places at which these bytes stand, roughly.
pub(super) fn of_bytes(bytes: &[u8]) -> f32 {
    let Some(first) = bytes.first() else { return 1.0 };
    let following = bytes.windows(2).map(|pair| match pair {
        [one, next] if one == next => AGAIN[kind(*one)],
        [one, next] => NEXT[kind(*one)][kind(*next)] / MEMBERS[kind(*next)],
        _ => 1.0,
    });
    of_byte(*first) * following.product::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_of_one_kind_and_shares_make_a_whole() {
        let mut members = [0.0; KINDS];
        (0..=u8::MAX).for_each(|byte| members[kind(byte)] += 1.0);
        assert_eq!(members, MEMBERS);
        for shares in NEXT.iter().chain([&SHARE]) {
            let sum: f32 = shares.iter().sum();
            assert!((0.98..1.02).contains(&sum), "{sum}");
        }
    }

    #[test]
    fn zeros_are_common_and_other_runs_are_rarer() {
        let order: [&[u8]; 5] = [&[0; 4], &[0xff; 4], &[0, 0, 0, 1], b"text", &[0x9a, 0x31, 0xe7, 0x5d]];
        assert!(order.is_sorted_by(|more, less| of_bytes(more) > of_bytes(less)));
    }
}
