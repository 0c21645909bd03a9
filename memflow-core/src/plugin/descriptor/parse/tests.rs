//! Sections, good and bad, and what is said about them.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;

use super::{super::*, *};

/// A plugin that is taken.
const GOOD: &[(&str, &str)] = &[
    ("memflow_plugin", "1"),
    ("kind", "connector"),
    ("name", "snapshot"),
    ("version", "0.1.0"),
    ("abi", "1.1"),
    ("target", "x86_64-unknown-linux-gnu"),
    ("entry", "memflow_plugin_snapshot"),
    ("description", "memory images"),
];

fn section(entries: &[(&str, &str)]) -> Vec<u8> {
    entries.iter().flat_map(|(key, value)| format!("{key}={value}\0").into_bytes()).collect()
}

/// `GOOD` with the value of one key changed, or the key added.
fn with(key: &str, value: &str) -> Vec<u8> {
    let mut entries = GOOD.to_vec();
    match entries.iter_mut().find(|entry| entry.0 == key) {
        Some(entry) => entry.1 = value,
        None => entries.push((key, value)),
    }
    section(&entries)
}

fn without(key: &str) -> Vec<u8> {
    section(&GOOD.iter().copied().filter(|entry| entry.0 != key).collect::<Vec<_>>())
}

fn one(section: &[u8]) -> Result<Descriptor, BadDescriptor> {
    let mut plugins = Descriptor::parse_section(section).unwrap();
    assert_eq!(plugins.len(), 1);
    plugins.remove(0)
}

/// What is said about the only plugin of a section.
fn complaint(section: &[u8]) -> String {
    one(section).unwrap_err().to_string()
}

#[test]
fn every_field_arrives() {
    let mut entries = GOOD.to_vec();
    entries.extend([
        ("accepts", "os"),
        ("arg", "layout:text:auto:which addresses a raw image holds"),
        ("accepts", "content"),
        ("from_the_future", "x=y"),
        ("arg", "partial:flag:no:take what is there"),
        ("layout", "abi_stable 0.11"),
        ("help", "one\ntwo = 2\n"),
        ("accepts", "os"),
    ]);
    assert_eq!(
        one(&section(&entries)).unwrap(),
        Descriptor {
            kind: PluginKind::Connector,
            name: "snapshot".into(),
            version: semver::Version::new(0, 1, 0),
            abi: AbiVersion { major: 1, minor: 1 },
            target: "x86_64-unknown-linux-gnu".into(),
            entry: "memflow_plugin_snapshot".into(),
            description: "memory images".into(),
            accepts: vec![Accepts::Os, Accepts::Content],
            args: vec![
                "layout:text:auto:which addresses a raw image holds".into(),
                "partial:flag:no:take what is there".into()
            ],
            layout: Some("abi_stable 0.11".into()),
            help: "one\ntwo = 2\n".into(),
        }
    );
}

#[test]
fn padding_means_nothing() {
    let plain = one(&section(GOOD)).unwrap();
    let mut padded = vec![0; 7];
    for (key, value) in GOOD {
        padded.extend(format!("{key}={value}\0\0\0\0").bytes());
    }
    padded.extend([0; 4096]);
    assert_eq!(one(&padded).unwrap(), plain);
}

#[test]
fn order_of_keys_means_nothing() {
    let mut entries = GOOD.to_vec();
    entries[1..].reverse();
    assert_eq!(one(&section(&entries)).unwrap(), one(&section(GOOD)).unwrap());
}

#[test]
fn mistake_of_one_plugin_leaves_the_others() {
    let bytes = [section(GOOD), with("name", "Bad Name"), without("entry"), with("name", "other")].concat();
    let plugins = Descriptor::parse_section(&bytes).unwrap();
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.as_ref().map(|plugin| plugin.name.as_str())).collect();
    let [Ok("snapshot"), Err(first), Err(second), Ok("other")] = &names[..] else { panic!("{names:?}") };
    assert_eq!(
        first.to_string(),
        "descriptor 1: `name`: expected at most 32 of a-z, 0-9, `_` and `-`, not beginning with `_` or `-`, found `Bad Name`"
    );
    assert_eq!(second.to_string(), "descriptor of `snapshot`: `entry` is missing");
}

#[test]
fn name_behind_a_mistake_is_still_found() {
    let mut entries = GOOD.to_vec();
    entries[1].1 = "kernel";
    assert_eq!(
        complaint(&section(&entries)),
        "descriptor of `snapshot`: `kind`: expected `connector` or `os`, found `kernel`"
    );
}

#[test]
fn each_required_key_is_asked_for() {
    for (key, _) in &GOOD[1..] {
        let error = one(&without(key)).unwrap_err().error;
        assert!(matches!(error, DescriptorError::Missing { key: missing } if missing == *key), "{key}: {error}");
    }
}

#[test]
fn key_that_comes_once_may_not_come_twice() {
    let single = GOOD[1..].iter().copied().chain([("layout", "x"), ("help", "x")]);
    for (key, value) in single {
        let bytes = [with(key, value), section(&[(key, value)])].concat();
        let error = one(&bytes).unwrap_err().error;
        assert!(matches!(error, DescriptorError::Duplicate { key: twice } if twice == key), "{key}: {error}");
    }
}

#[test]
fn values_are_what_their_keys_ask_for() {
    let long = "a".repeat(300);
    let bad: &[(&str, &[&str])] = &[
        ("kind", &["", "Connector", "os ", "connector,os"]),
        ("name", &["", "_a", "-a", "A", "a.b", "a/b", "a b", "ä", &long[..33]]),
        ("version", &["", "1", "1.0", "01.0.0", "1.0.0 ", "v1.0.0", "1.0.99999999999999999999"]),
        ("abi", &["", "1", "1.", ".1", "1.1.1", "+1.1", "-1.1", "1.65536", "99999999999.0", " 1.1", "1.x", "1,1"]),
        ("target", &["", "a b", "a\n", "x86_64/linux", &long]),
        ("entry", &["", "1a", "a-b", "a b", "ä", "a\n", "../a", &long]),
        ("description", &["", "two\nlines", "a\u{1b}[31mred", "tab\there"]),
        ("layout", &["", "two\nlines"]),
        ("accepts", &["", "Content", "file"]),
    ];
    for (key, values) in bad {
        for value in *values {
            let error = one(&with(key, value)).unwrap_err().error;
            let DescriptorError::Value { key: named, found, .. } = &error else { panic!("{key}={value}: {error}") };
            assert_eq!(named, key);
            assert!(!found.contains(char::is_control) && found.chars().count() <= 400, "{error}");
        }
    }
    let good: &[(&str, &[&str])] = &[
        ("kind", &["os"]),
        ("name", &["a", "0", "a-b_c", "9p", &long[..32]]),
        ("version", &["1.2.3-rc.1+build.5", "0.0.0"]),
        ("abi", &["0.0", "65535.65535"]),
        ("target", &["thumbv8m.main-none-eabi", "i686-pc-windows-msvc"]),
        ("entry", &["_", "a9", &long[..255]]),
        ("description", &["ä", " "]),
        ("help", &["", "two\nlines\ttab"]),
        ("arg", &["", "anything"]),
    ];
    for (key, values) in good {
        for value in *values {
            assert!(one(&with(key, value)).is_ok(), "{key}={value}");
        }
    }
}

#[test]
fn later_format_names_both_versions() {
    assert_eq!(
        complaint(&with("memflow_plugin", "2")),
        "descriptor of `snapshot`: descriptor format 2, this build reads 1; update memflow, or rebuild the plugin for this one"
    );
}

#[test]
fn string_without_end_is_told() {
    let mut bytes = section(GOOD);
    bytes.pop();
    let start = bytes.len() - "description=memory images".len();
    assert_eq!(one(&bytes).unwrap_err().error, DescriptorError::Unterminated { offset: start as u64 });
}

#[test]
fn every_shorter_section_is_refused() {
    let bytes = section(GOOD);
    for len in 0..bytes.len() {
        match Descriptor::parse_section(&bytes[..len]) {
            Ok(plugins) => assert!(plugins.len() == 1 && plugins[0].is_err(), "{len}"),
            Err(error) => assert!(len < "memflow_plugin=".len(), "{len}: {error}"),
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_told_with_its_place() {
    let mut bytes = with("help", "abc");
    let at = bytes.len() - 3;
    bytes[at] = 0xff;
    assert_eq!(one(&bytes).unwrap_err().error, DescriptorError::NotUtf8 { offset: at as u64 });
}

#[test]
fn string_without_value_is_told() {
    let bytes = [section(GOOD), b"loose\0".to_vec()].concat();
    assert!(complaint(&bytes).ends_with("expected `key=value`, found `loose`"), "{}", complaint(&bytes));
}

#[test]
fn section_that_does_not_begin_with_a_plugin_is_refused() {
    assert_eq!(Descriptor::parse_section(&[]), Err(DescriptorError::Empty));
    assert_eq!(Descriptor::parse_section(&[0; 100]), Err(DescriptorError::Empty));
    let error = Descriptor::parse_section(&section(&GOOD[1..])).unwrap_err();
    assert_eq!(error.to_string(), "at offset 0x0: expected `memflow_plugin=1`, found `kind=connector`");
    let error = Descriptor::parse_section(&[0x7f; 5000]).unwrap_err();
    assert!(error.to_string().len() < 600, "{error}");
}

#[test]
fn limits_are_limits() {
    let long = "x".repeat(MAX_VALUE + 1);
    assert!(one(&with("help", &long[1..])).is_ok());
    for key in ["help", "unknown", "arg"] {
        let error = one(&with(key, &long)).unwrap_err().error;
        assert!(matches!(error, DescriptorError::TooLong { found, .. } if found == long.len() as u64), "{error}");
    }

    let args: Vec<_> = std::iter::repeat_n(("arg", "a:text::"), MAX_ARGS).collect();
    let bytes = [section(GOOD), section(&args)].concat();
    assert_eq!(one(&bytes).unwrap().args.len(), MAX_ARGS);
    assert_eq!(
        one(&[bytes, section(&args[..1])].concat()).unwrap_err().error,
        DescriptorError::TooManyArgs { limit: MAX_ARGS }
    );

    let plugins = section(GOOD).repeat(MAX_PLUGINS);
    assert_eq!(Descriptor::parse_section(&plugins).unwrap().len(), MAX_PLUGINS);
    assert_eq!(
        Descriptor::parse_section(&[plugins, section(GOOD)].concat()),
        Err(DescriptorError::TooManyPlugins { limit: MAX_PLUGINS })
    );

    let mut bytes = section(GOOD);
    bytes.resize(MAX_SECTION, 0);
    assert!(one(&bytes).is_ok());
    bytes.push(0);
    assert!(matches!(Descriptor::parse_section(&bytes), Err(DescriptorError::SectionTooLarge { .. })));
}

#[test]
fn host_takes_any_minor_version_of_its_major_one() {
    let host = AbiVersion::new(1, 1);
    for (plugin, taken) in [((1, 0), true), ((1, 1), true), ((1, 9), true), ((0, 1), false), ((2, 1), false)] {
        assert_eq!(host.accepts(AbiVersion::new(plugin.0, plugin.1)), taken, "{plugin:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(Descriptor::parse_section(&bytes));
        drop(Descriptor::parse_section(&[section(GOOD), bytes].concat()));
    }

    #[test]
    fn any_changed_byte_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = section(GOOD);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(plugins) = Descriptor::parse_section(&bytes) {
            for bad in plugins.into_iter().filter_map(Result::err) {
                prop_assert!(!bad.to_string().contains(char::is_control));
            }
        }
    }
}
