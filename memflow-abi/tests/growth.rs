//! Earlier minor versions keep working: each is frozen in `tests/abi/MAJOR.MINOR`, and this one is that one with things appended.
//!
//! Owns: the comparison with frozen records and headers. Must not know: how plugins are loaded; the tests in `tests/abi` do that
//! with plugins and hosts of those versions.
#![cfg(target_pointer_width = "64")]

mod common;

use std::fs;

use memflow_abi::{MAJOR, MINOR};

use crate::common::{Record, c};

/// What to do where a version is missing.
const FREEZE: &str = "see \"When the plugin ABI grows\" in docs/design.md";

#[test]
fn every_earlier_minor_version_is_frozen() {
    let frozen: Vec<_> = common::frozen().into_iter().map(|(version, _)| version).collect();
    let earlier: Vec<_> = (0..MINOR).map(|minor| (MAJOR, minor)).collect();
    assert_eq!(frozen, earlier, "versions in tests/abi, and those before {MAJOR}.{MINOR}: {FREEZE}");
}

#[test]
fn this_version_appends_to_each_frozen_one() {
    let current = Record::parse(&common::render());
    for (version, folder) in common::frozen() {
        let frozen = Record::parse(&fs::read_to_string(folder.join("layout-64.txt")).unwrap());
        assert_eq!((frozen.major, frozen.minor), version, "{}", folder.display());
        assert_eq!(frozen.broken_by(&current), [""; 0], "plugins built against {version:?} would break");
    }
}

#[test]
fn frozen_headers_have_the_layout_of_their_record() {
    for ((major, minor), folder) in common::frozen() {
        let expected = fs::read_to_string(folder.join("layout-64.txt")).unwrap();
        for language in [c::C, c::CPP] {
            let program = c::program(&Record::parse(&expected));
            let found = c::printed(language, &folder, &format!("layout-{major}-{minor}"), &program);
            let difference = || common::first_difference(&expected, &found);
            assert!(expected == found, "{} with {}: {}", language[0], folder.display(), difference());
        }
    }
}

#[test]
fn each_way_to_break_an_earlier_version_is_found() {
    let earlier = "abi 1.0\n\nfixed Run size 8 align 8\n  start offset 0 size 8\n\ngrowing Info size 16 align 8\n  header offset 0 \
                   size 8\n  kind offset 8 size 4\n\nnumbers status size 4\n  NONE 0\n  DONE 1\n";
    let later = earlier.replace("abi 1.0", "abi 1.1");
    let broken = |from: &str, to: &str| {
        let changed = later.replace(from, to);
        assert!(from.is_empty() || changed != later, "nothing changes with {from}");
        Record::parse(earlier).broken_by(&Record::parse(&changed))
    };
    let kind = "  kind offset 8 size 4\n";
    let more = format!("{kind}  more offset 16 size 8\n");
    let nothing = Vec::<String>::new();
    assert_eq!(broken("", ""), nothing);
    assert_eq!(broken(kind, &more), nothing);
    assert_eq!(broken("  DONE 1\n", "  DONE 1\n  LATER 2\n"), nothing);
    assert_eq!(broken("abi 1.1", "abi 1.1\n\nfixed New size 8 align 8\n  a offset 0 size 8"), nothing);

    assert_eq!(broken("abi 1.1", "abi 2.0"), ["2.0 is no later minor version"]);
    assert_eq!(broken("abi 1.1", "abi 1.0"), ["1.0 is no later minor version"]);
    assert_eq!(broken("Run", "Piece"), ["Run is gone"]);
    assert_eq!(broken("start", "first"), ["fixed Run changed"]);
    assert_eq!(broken("growing Info", "fixed Info"), ["Info grows in one version only"]);
    assert_eq!(broken("fixed Run", "growing Run"), ["fixed Run changed"]);
    assert_eq!(broken("Info size 16 align 8", "Info size 16 align 16"), ["Info has another alignment"]);
    assert_eq!(broken("Info size 16", "Info size 12"), ["Info became smaller"]);
    assert_eq!(broken(kind, ""), ["Info.kind changed"]);
    assert_eq!(broken(kind, "  sort offset 8 size 4\n"), ["Info.kind changed"]);
    assert_eq!(broken(kind, "  kind offset 8 size 2\n"), ["Info.kind changed"]);
    assert_eq!(broken(kind, &format!("  new offset 8 size 4\n{kind}")), ["Info.kind changed"]);
    let padded = format!("{kind}  more offset 12 size 4\n");
    assert_eq!(broken(kind, &padded), ["Info.more lies in the padding of the earlier structure"]);
    assert_eq!(broken("numbers status", "numbers state"), ["numbers status are gone"]);
    assert_eq!(broken("status size 4", "status size 8"), ["numbers status have another size"]);
    assert_eq!(broken("  DONE 1", "  DONE 2"), ["status::DONE is gone or has another value"]);
    let twice = "  DONE 1\n  READY 1";
    assert_eq!(broken("  DONE 1", twice), ["status::READY is 1, which has a name"]);
}
