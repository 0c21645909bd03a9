//! Seeds of the target for patterns.
//!
//! Owns: a line for each kind of pattern. Must not know: how patterns are read.

use super::Seed;

pub(crate) fn seeds() -> Vec<Seed> {
    let texts: [Seed; 4] = [
        ("pattern", "bytes", b"hex:48 8b ?? 4? 00\nhex:686578\nhex:?8 65".to_vec()),
        ("pattern", "text", "text:text\nitext:TeXt\nutf16:ab\niutf16:Ab\ntext:gr\u{f6}\u{df}e".into()),
        ("pattern", "values", b"u8:58\nu16be:0x3235\ni32:-1\nf32:1.5\nf64be:-2e3\nptr64:0xffff888000000000".to_vec()),
        (
            "pattern",
            "expressions",
            br"regex:[a-z]{3,}
iregex:(?s)X.{1,4}:
regex:\bx\x00?
regex:^regex$
regex:a+b"
                .to_vec(),
        ),
    ];
    texts.to_vec()
}
