//! Files whose names are no UTF-8, which a target string cannot say.
#![cfg(target_os = "linux")]

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
};

use super::{plugins::built, util::run_in};

fn name(bytes: &[u8]) -> OsString {
    OsStr::from_bytes(bytes).to_owned()
}

fn words(list: &[&OsStr]) -> Vec<OsString> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn word(text: &str) -> &OsStr {
    OsStr::new(text)
}

#[test]
fn file_is_opened_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..0x4000_u32).map(|index| (index >> 4) as u8).collect();
    fs::write(folder.path().join("plain"), &bytes).unwrap();
    let read = |target: &OsStr| words(&[word("read"), target, word("0xff0"), word("32"), word("--phys")]);
    let expected = run_in(folder.path(), read(word("plain"))).complete();
    for bytes_of_name in [&b"\xff"[..], b"a\xff b", b"snapshot:\xff:partial"] {
        let target = name(bytes_of_name);
        fs::write(folder.path().join(&target), &bytes).unwrap();
        assert_eq!(run_in(folder.path(), read(&target)).complete(), expected);
        // A loaded plugin gets at it too.
        let plugin = built()[0].as_os_str();
        let line = [read(&target), words(&[word("--plugin"), plugin])].concat();
        assert_eq!(run_in(folder.path(), line).complete(), expected);
    }
    let runs = words(&[word("read"), &name(b"\xff"), word("0x10ff0"), word("32"), word("--phys"), word("--layout")]);
    let moved = run_in(folder.path(), [runs, words(&[word("0x10000-0x13fff@0")])].concat()).complete();
    assert_eq!(moved.replace("10ff0", "0ff0").lines().count(), expected.lines().count());
    assert!(moved.starts_with("00010ff0  "), "{moved}");
}

#[test]
fn messages_name_the_file_and_not_where_it_was_opened() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name(b"\xff")), []).unwrap();
    fs::create_dir(folder.path().join(name(b"d\xff"))).unwrap();
    let error = |target: &[u8]| run_in(folder.path(), words(&[word("ps"), &name(target)])).error(3);
    assert_eq!(error(b"\xff"), "\u{fffd}: is empty; was it copied completely?");
    assert_eq!(error(b"d\xff"), "d\u{fffd}: is a directory; name the memory image inside it");
    assert_eq!(error(b"missing\xff"), "opening missing\u{fffd}: No such file or directory (os error 2)");
    let error = run_in(folder.path(), words(&[word("ps"), &name(b"snapshot:\xff:partial")])).error(2);
    assert_eq!(error, "snapshot:\u{fffd}:partial: a target string is UTF-8; name the file alone, as TARGET");
    let error = run_in(folder.path(), words(&[word("ps"), word("-c"), &name(b"snapshot:\xff")])).error(2);
    assert!(error.contains("a target string is UTF-8"), "{error}");

    fs::write(folder.path().join(name(b"noise\xff")), [0x5a; 0x2000]).unwrap();
    let described = run_in(folder.path(), words(&[word("info"), &name(b"noise\xff"), word("--json")]));
    let document: serde_json::Value = serde_json::from_str(&described.out).unwrap();
    assert_eq!(document["target"]["name"], "noise\u{fffd}");
    assert!(!described.err.contains("/proc/"), "{}", described.err);
}

#[test]
fn dump_does_not_overwrite_such_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let target = name(b"\xff");
    fs::write(folder.path().join(&target), [1; 0x2000]).unwrap();
    let line = words(&[word("dump"), &target, word("--force"), word("-o"), &target]);
    assert!(run_in(folder.path(), line).error(2).ends_with("is the target itself; name another file"));
    assert_eq!(fs::read(folder.path().join(&target)).unwrap(), [1; 0x2000]);
}
