//! A descriptor as bytes, put together while a plugin is compiled.
//!
//! Owns: the form of the bytes, and the mistakes that can be found at compile time.
//! Must not know: macros that call it.
//! Keeps: what it makes is what [`Descriptor::parse_section`](super::Descriptor::parse_section) reads; a wrong entry stops the
//! compiler. It runs nowhere else, so a panic here is a compile error.

/// What begins every descriptor.
const START: &str = "memflow_plugin=1\0";
/// What must be there exactly once.
const REQUIRED: [&str; 7] = ["kind", "name", "version", "abi", "target", "entry", "description"];

/// Length in bytes of the array that [`join`] makes of the same entries.
#[must_use]
pub const fn joined_len(entries: &[(&str, &str)]) -> usize {
    let mut len = START.len();
    let mut index = 0;
    while index < entries.len() {
        // `key=value\0`
        len += entries[index].0.len() + entries[index].1.len() + 2;
        index += 1;
    }
    len
}

/// One plugin's descriptor: `memflow_plugin=1`, then an entry for each key and value. For a `static` in the descriptor section:
///
/// ```
/// use memflow_core::plugin::descriptor::{Descriptor, HOST_TARGET, join, joined_len};
///
/// const ENTRIES: &[(&str, &str)] = &[
///     ("kind", "connector"),
///     ("name", "example"),
///     ("version", env!("CARGO_PKG_VERSION")),
///     ("abi", "1.0"),
///     ("target", HOST_TARGET),
///     ("entry", "memflow_plugin_example"),
///     ("description", "serves nothing"),
/// ];
/// static DESCRIPTOR: [u8; joined_len(ENTRIES)] = join(ENTRIES);
///
/// let plugins = Descriptor::parse_section(&DESCRIPTOR)?;
/// assert!(matches!(&plugins[..], [Ok(plugin)] if plugin.name == "example"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A NUL in a value would end it early, and does not compile:
///
/// ```compile_fail
/// # use memflow_core::plugin::descriptor::join;
/// static DESCRIPTOR: [u8; 64] = join(&[("help", "one\0two")]);
/// ```
///
/// # Panics
/// Which is a compile error where it belongs: if a key is not of a-z and `_`, a value holds a NUL or is longer than 64 KiB, one of
/// the keys that must be there once is missing or there twice, or `N` is not [`joined_len`].
#[must_use]
pub const fn join<const N: usize>(entries: &[(&str, &str)]) -> [u8; N] {
    assert!(N == joined_len(entries), "the length is not that of `joined_len`");
    check(entries);
    let mut out = [0; N];
    let mut at = put(&mut out, 0, START.as_bytes());
    let mut index = 0;
    while index < entries.len() {
        at = put(&mut out, at, entries[index].0.as_bytes());
        at = put(&mut out, at, b"=");
        at = put(&mut out, at, entries[index].1.as_bytes());
        // The NUL is there already.
        at += 1;
        index += 1;
    }
    out
}

const fn put(out: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    let mut index = 0;
    while index < bytes.len() {
        out[at + index] = bytes[index];
        index += 1;
    }
    at + bytes.len()
}

const fn check(entries: &[(&str, &str)]) {
    let mut index = 0;
    while index < entries.len() {
        let (key, value) = (entries[index].0.as_bytes(), entries[index].1.as_bytes());
        assert!(!key.is_empty(), "a key of the plugin's descriptor is empty");
        let mut at = 0;
        while at < key.len() {
            assert!(
                key[at].is_ascii_lowercase() || key[at] == b'_',
                "a key of the plugin's descriptor has a character other than a-z and `_`"
            );
            at += 1;
        }
        assert!(
            !equal(key, b"memflow_plugin"),
            "`memflow_plugin` is put at the start of the plugin's descriptor by itself"
        );
        assert!(value.len() <= super::MAX_VALUE, "a value of the plugin's descriptor is longer than 64 KiB");
        let mut at = 0;
        while at < value.len() {
            assert!(value[at] != 0, "a value of the plugin's descriptor holds a NUL");
            at += 1;
        }
        index += 1;
    }
    let mut index = 0;
    while index < REQUIRED.len() {
        match count(entries, REQUIRED[index]) {
            0 => panic!("the plugin's descriptor lacks one of kind, name, version, abi, target, entry and description"),
            1 => {}
            _ => panic!(
                "the plugin's descriptor has one of kind, name, version, abi, target, entry and description twice"
            ),
        }
        index += 1;
    }
}

const fn count(entries: &[(&str, &str)], key: &str) -> usize {
    let mut count = 0;
    let mut index = 0;
    while index < entries.len() {
        if equal(entries[index].0.as_bytes(), key.as_bytes()) {
            count += 1;
        }
        index += 1;
    }
    count
}

/// `==` of slices, which is not for compile time.
const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::{super::Descriptor, *};

    const FULL: &[(&str, &str)] = &[
        ("kind", "os"),
        ("name", "linux"),
        ("version", "0.1.0"),
        ("abi", "1.1"),
        ("target", super::super::HOST_TARGET),
        ("entry", "memflow_plugin_linux"),
        ("description", "Linüx"),
        ("arg", "a:text::one"),
        ("arg", ""),
        ("help", "several\nlines"),
    ];
    static JOINED: [u8; joined_len(FULL)] = join(FULL);

    #[test]
    fn joined_bytes_are_the_strings_in_order() {
        let mut expected = b"memflow_plugin=1\0".to_vec();
        for (key, value) in FULL {
            expected.extend(format!("{key}={value}\0").bytes());
        }
        assert_eq!(JOINED.as_slice(), expected);
    }

    #[test]
    fn joined_bytes_are_read_back() {
        let plugins = Descriptor::parse_section(&JOINED).unwrap();
        let [Ok(plugin)] = &plugins[..] else { panic!("{plugins:?}") };
        assert_eq!((plugin.name.as_str(), plugin.description.as_str()), ("linux", "Linüx"));
        assert_eq!(
            (plugin.args.as_slice(), plugin.help.as_str()),
            (["a:text::one", ""].map(String::from).as_slice(), "several\nlines")
        );
    }

    fn message(entries: &'static [(&'static str, &'static str)]) -> String {
        let panic = catch_unwind(|| check(entries)).unwrap_err();
        (*panic.downcast::<&str>().unwrap()).to_owned()
    }

    #[test]
    fn mistakes_are_told_while_compiling() {
        assert!(message(&[("help", "one\0two")]).contains("holds a NUL"));
        assert!(message(&[("", "x")]).contains("empty"));
        assert!(message(&[("a=b", "x")]).contains("other than a-z"));
        assert!(message(&[("memflow_plugin", "1")]).contains("by itself"));
        assert!(message(&[("kind", "os")]).contains("lacks one of"));
        assert!(message(&[("kind", "os"), ("kind", "os")]).contains("twice"));
        assert!(catch_unwind(|| join::<3>(FULL)).is_err());
    }
}
