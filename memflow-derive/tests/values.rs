//! The rules that stand in this crate and in `memflow-core`.
//!
//! Owns: that both accept the same. Must not know: what they are for.
#![expect(clippy::unwrap_used, reason = "tests")]

use memflow_core::plugin::args::{ArgKind, ArgSpec, ArgValue, is_plugin_name};

#[path = "../src/value.rs"]
#[expect(dead_code, reason = "limits are for the attributes")]
mod value;

const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "A",
    "0",
    "1",
    "7",
    "07",
    "+1",
    "-1",
    "0x",
    "0x1B",
    "0X1b",
    "0x+1",
    "1B",
    "1 B",
    "1  KiB",
    " 1KiB",
    "1KB",
    "1kib",
    "1.5GiB",
    "16MiB",
    "2TiB",
    "0x10MiB",
    "16777216TiB",
    "16777215TiB",
    "18446744073709551615",
    "18446744073709551616",
    "0xffffffffffffffff",
    "0x10000000000000000",
    "ff",
    "5",
    "5s",
    "5 ms",
    "5us",
    "5ns",
    "5min",
    "5 h",
    "+5s",
    "s",
    "0x5s",
    "18446744073709551615s",
    "18446744073709551616s",
    "307445734561825860min",
    "307445734561825861min",
    "340282366920938463463374607431768211456ns",
    "true",
    "yes",
    "on",
    "false",
    "no",
    "off",
    "True",
    "auto",
    "flat",
    "a-b",
    "a_b",
    "-a",
    "_a",
    "a.b",
    "a+b",
    "9a",
    "ä",
    "a b",
    "a\0b",
    "a|b",
    "a:b",
    "1_000",
    "abcdefghijklmnopqrstuvwxyz012345",
    "abcdefghijklmnopqrstuvwxyz0123456",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklm",
];

#[test]
fn defaults_are_those_of_the_library() {
    let words = ["auto", "flat"];
    let mut kinds: Vec<value::Kind> = ["text", "path", "flag", "number", "size", "time"]
        .iter()
        .map(|name| value::Kind::simple(name).unwrap())
        .collect();
    kinds.push(value::Kind::Choice(words.map(String::from).to_vec()));
    for kind in kinds {
        let theirs: ArgKind = kind.descriptor().parse().unwrap();
        assert_eq!(theirs.to_string(), kind.descriptor());
        for text in TEXTS {
            assert_eq!(kind.accepts(text), theirs.accepts(&ArgValue::from(*text)), "{kind:?} {text:?}");
        }
    }
}

#[test]
fn names_are_those_of_the_library() {
    for text in TEXTS {
        assert_eq!(value::is_plugin_name(text), is_plugin_name(text), "{text:?}");
        assert_eq!(value::is_key(text), ArgSpec::new(*text, ArgKind::Text).validate().is_ok(), "{text:?}");
        let choice = format!("choice({text})").parse::<ArgKind>();
        // The library reads `|` as the end of a word.
        assert_eq!(value::is_word(text), choice.is_ok() && !text.contains('|'), "{text:?}");
    }
}
