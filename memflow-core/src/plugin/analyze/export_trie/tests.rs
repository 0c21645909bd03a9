//! Trees of exports, well-formed and not.
#![allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test fails by panicking")]

use super::*;

/// The example of `_foo` and `_foobar`: node 0 leads to 7 with `_foo`, which is an export and leads to 18 with `bar`.
const TREE: [u8; 22] = [
    0, 1, b'_', b'f', b'o', b'o', 0, 8, // 0: nothing ends here, one child
    2, 0, 0x10, 1, b'b', b'a', b'r', 0, 17, // 8: regular at 0x10
    3, 0, 0x80, 0x01, 0, // 17: regular at 0x80
];

#[test]
fn name_is_followed_to_its_end() {
    assert_eq!(find(&TREE, b"_foo"), Ok(Some(Export::Address(0x10))));
    assert_eq!(find(&TREE, b"_foobar"), Ok(Some(Export::Address(0x80))));
    for absent in [&b""[..], b"_", b"_fo", b"_foob", b"_foobarx", b"x"] {
        assert_eq!(find(&TREE, absent), Ok(None), "{absent:?}");
    }
}

#[test]
fn beginning_of_a_name_is_found() {
    for begins in [&b"_"[..], b"_fo", b"_foo", b"_foob", b"_foobar"] {
        assert_eq!(any_begins_with(&TREE, begins), Ok(true), "{begins:?}");
    }
    for absent in [&b"x"[..], b"_x", b"_foox", b"_foobarx"] {
        assert_eq!(any_begins_with(&TREE, absent), Ok(false), "{absent:?}");
    }
}

#[test]
fn kinds_that_are_no_addresses_are_told() {
    for (flags, found) in [
        (1, "a variable of each thread"),
        (2, "a number, not an address"),
        (8, "in another library"),
        (0x10, "a function"),
    ] {
        let mut tree = TREE;
        tree[9] = flags;
        assert_eq!(find(&tree, b"_foo"), Ok(Some(Export::Other(found))));
    }
    // A weak definition is one.
    let mut tree = TREE;
    tree[9] = 4;
    assert_eq!(find(&tree, b"_foo"), Ok(Some(Export::Address(0x10))));
}

#[test]
fn tree_with_a_loop_ends() {
    // The edge `a` leads back to its own node; so does one without a name.
    let tree = [0, 1, b'a', 0, 0];
    assert!(find(&tree, &[b'a'; 300]).is_err());
    assert!(any_begins_with(&tree, &[b'a'; 300]).is_err());
    assert_eq!(find(&[0, 1, 0, 0], b"a"), Ok(None));
    assert_eq!(any_begins_with(&[0, 1, 0, 0], b"a"), Ok(false));
}

#[test]
fn tree_cut_short_anywhere_has_an_answer() {
    // The last byte is the number of children, which nobody asks for.
    for len in 0..TREE.len() - 1 {
        assert!(!matches!(find(&TREE[..len], b"_foobar"), Ok(Some(_))), "{len}");
    }
    for at in 0..TREE.len() {
        for byte in 0..=255 {
            let mut tree = TREE;
            tree[at] = byte;
            // What is exported begins with itself.
            if matches!(find(&tree, b"_foobar"), Ok(Some(_))) {
                assert_eq!(any_begins_with(&tree, b"_foobar"), Ok(true));
            }
        }
    }
    // Numbers wider than 64 bits, and a child past all memory.
    assert!(find(&[0xff; 40], b"a").is_err());
    assert!(find(&[0, 1, b'a', 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], b"a").is_err());
}
