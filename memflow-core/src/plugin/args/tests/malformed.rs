//! Every malformed text is an error with its position and the way out.

use super::{Args, ConnectorSpec, OsSpec};
use crate::plugin::args::{MAX_ARGS, MAX_TEXT};

fn error(text: &str) -> String {
    match text.parse::<ConnectorSpec>() {
        Ok(spec) => panic!("{text}: taken for {spec:?}"),
        Err(error) => error.to_string(),
    }
}

/// The text of the error is checked to its end.
fn assert_error(text: &str, character: usize, rest: &str) {
    assert_eq!(error(text), format!("`{text}`, character {character}: expected {rest}"));
}

const ARG: &str = "an argument, `key` or `key=value` (keys are lower-case letters, digits, - and _, a letter first)";

/// memflow 0.2.4 dropped the bad part of `x=1,foo bar` and `x=1,a=b=c`.
#[test]
fn bad_argument_is_not_dropped() {
    assert_error("s::x=1,foo bar", 8, &format!("{ARG}, found `foo bar`"));
    assert_error("s::x=1,a=b=c", 11, "`=` in a value only in quotes (`\"b=c\"`), found `=c`");
    assert_error("s::x=1,", 8, &format!("{ARG}, found `end of text`"));
    assert_error("s::x=1,,y=2", 8, &format!("{ARG}, found `,y=2`"));
    assert_error("s::=1", 4, &format!("{ARG}, found `=1`"));
    assert_error("s::X=1", 4, &format!("{ARG}, found `X=1`"));
    assert_error("s::x=1, y=2", 8, &format!("{ARG}, found ` y=2`"));
    assert_error("s::x =1", 4, &format!("{ARG}, found `x =1`"));
    assert_error("s::x=,y=2", 6, "a value, or `\"\"` for an empty one, found `,y=2`");
    assert_error("s::x=", 6, "a value, or `\"\"` for an empty one, found `end of text`");
    assert_error("s::x= 1", 6, "white space at the ends of a value only in quotes (`\" 1\"`), found ` 1`");
}

/// memflow 0.2.4 dropped what came after the third `:`.
#[test]
fn extra_part_is_not_dropped() {
    assert_error("s:/a:x=1:y", 9, "`:` in a value only in quotes (`\"1:y\"`), found `:y`");
    assert_error(
        "s:/a:x:y",
        7,
        "`=`, `,` or the end after a key; a target that holds `:` stands in quotes (`s:\"/a:x:y\"`), found `:y`",
    );
    assert_error("s:\"/a\":x:y", 9, "`=`, `,` or the end after a key, found `:y`");
}

#[test]
fn path_with_colon_says_how_to_quote() {
    let hint = "; a target that holds `:` stands in quotes";
    assert_error("snapshot:/a:b/c", 13, &format!("{ARG}{hint} (`snapshot:\"/a:b/c\"`), found `b/c`"));
    let path = "/dev/disk/by-path/pci-0000:00:1f.2";
    assert_error(&format!("s:{path}"), 30, &format!("{ARG}{hint} (`s:\"{path}\"`), found `00:1f.2`"));
    assert_error("s:C:a.raw", 5, &format!("{ARG}{hint} (`s:\"C:a.raw\"`), found `a.raw`"));
}

#[test]
fn arguments_in_place_of_the_target_are_not_taken_for_it() {
    let way_out = "; arguments follow after another `:` (`s:TARGET:key=value`, `s::key=value`)";
    assert_error(
        "s:layout=flat",
        9,
        &format!("`=` in a target only in quotes (`\"layout=flat\"`){way_out}, found `=flat`"),
    );
    assert_error(
        "s:/a.raw,partial",
        9,
        &format!("`,` in a target only in quotes (`\"/a.raw,partial\"`){way_out}, found `,partial`"),
    );
}

/// In memflow 0.2.4 an open quote swallowed the rest.
#[test]
fn open_quote_is_an_error() {
    assert_error("s:\"/a:x=1", 3, "a closing `\"`, found `\"/a:x=1`");
    assert_error("s:'/a:x=1", 3, "a closing `'`, found `'/a:x=1`");
    assert_error("s::x=\"1,y=2", 6, "a closing `\"`, found `\"1,y=2`");
    assert_error(r#"s:"a\""#, 3, r#"a closing `"`, found `"a\"`"#);
}

#[test]
fn quotes_hold_the_whole_text() {
    assert_error("s:\"/a\"b", 7, "`:` or the end after a closing quote, found `b`");
    assert_error("s::x=\"1\"2", 9, "`,` or the end after a closing quote, found `2`");
    assert_error("s::\"x\"y", 7, "`=`, `,` or the end after a closing quote, found `y`");
    let way_out = "; arguments follow after another `:` (`s:TARGET:key=value`, `s::key=value`)";
    assert_error("s:it's", 5, &format!("`'` in a target only in quotes (`\"it's\"`){way_out}, found `'s`"));
    assert_error("s::x=a\"b\"", 7, "`\"` in a value only in quotes (`'a\"b\"'`), found `\"b\"`");
}

#[test]
fn backslash_is_never_ambiguous() {
    let clear = "as it could be meant to be part of the target; quotes make it clear";
    assert_error(r"s:/a\:b", 6, &format!(r"no backslash before `:`, {clear} (`'/a\'`), found `:b`"));
    let clear = "as it could be meant to be part of the value; quotes make it clear";
    assert_error(r"s::x=1\,y", 8, &format!(r"no backslash before `,`, {clear} (`'1\'`), found `,y`"));
    let escapes = r#"`\\`, `\"` or `\u{HEX}` (in single quotes and without quotes a backslash is itself)"#;
    assert_error(r#"s:"C:\new""#, 6, &format!(r#"{escapes}, found `\new"`"#));
    for bad in
        [r"\u", r"\u{", r"\u{}", r"\u{d800}", r"\u{110000}", r"\u{0000041}", r"\u{+41}", r"\u{41", r"\x41", r"\'"]
    {
        assert!(error(&format!("s:\"{bad}\"")).contains(&format!("character 4: expected {escapes}")), "{bad}");
    }
}

#[test]
fn empty_parts_are_errors() {
    assert_error("s:", 3, "a target after `:` (`\"\"` is an empty one), or no `:`, found `end of text`");
    assert_error("s::", 4, &format!("{ARG}, found `end of text`"));
    let hint = "; a target that holds `:` stands in quotes (`s:\"/a:\"`)";
    assert_error("s:/a:", 6, &format!("{ARG}{hint}, found `end of text`"));
    let name = "the name of a plugin (1 to 32 lower-case letters, digits, - and _, no - or _ first)";
    assert_error("", 1, &format!("{name}, found `end of text`"));
    assert_error(":x", 1, &format!("{name}, found `end of text`").replace("end of text", ":x"));
    assert_error("@1:x", 1, &format!("{name}, found `@1:x`"));
}

#[test]
fn names_and_versions_are_checked() {
    let name = "the name of a plugin (1 to 32 lower-case letters, digits, - and _, no - or _ first)";
    for bad in ["Snapshot", "/a.so", "a b", "sna,pshot", "é", "\"s\""] {
        assert_error(bad, 1, &format!("{name}, found `{bad}`"));
    }
    let version = "a version after `@` (letters, digits, ., -, _ and +, such as 0.1.0)";
    assert_error("s@:x", 3, &format!("{version}, found `:x`"));
    assert_error("s@1@2:x", 3, &format!("{version}, found `1@2`"));
}

#[test]
fn key_given_twice_is_named() {
    assert_error("s::cache=1,delay=2s,cache=3", 21, "each argument once, found `cache`");
    assert_error("s::x,\"x\"", 6, "each argument once, found `x`");
}

#[test]
fn os_layers_have_no_target() {
    let hint = "; an OS layer has no target, only arguments (`linux:key=value`)";
    for (text, found) in [("linux:/boot/x", "/boot/x"), ("linux::x=1", ":x=1"), ("linux:", "end of text")] {
        let error = text.parse::<OsSpec>().unwrap_err().to_string();
        assert_eq!(error, format!("`{text}`, character 7: expected {ARG}{hint}, found `{found}`"));
    }
}

#[test]
fn control_characters_are_quoted_and_never_printed() {
    let error = error("s:/a\n\u{1b}[2J");
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.contains(r#"`\n` in a target only in quotes (`"/a\u{a}\u{1b}[2J"`)"#), "{error}");
}

#[test]
fn positions_count_characters() {
    assert_error(
        "s:äöü=",
        6,
        "`=` in a target only in quotes (`\"äöü=\"`); arguments follow after another `:` (`s:TARGET:key=value`, `s::key=value`), found `=`",
    );
}

#[test]
fn limits_hold() {
    let longest = format!("s:{}", "a".repeat(MAX_TEXT - 2));
    assert_eq!(longest.parse::<ConnectorSpec>().unwrap().target().unwrap().len(), MAX_TEXT - 2);
    let error = error(&format!("{longest}a"));
    assert!(error.ends_with("expected at most 65536 bytes, found `65537 bytes`"), "{error}");
    assert!(error.len() < 1000, "{error}");

    let args = |count: usize| (0..count).map(|index| format!("k{index}")).collect::<Vec<_>>().join(",");
    assert_eq!(args(MAX_ARGS).parse::<Args>().unwrap().len(), MAX_ARGS);
    let error = args(MAX_ARGS + 1).parse::<Args>().unwrap_err().to_string();
    assert!(error.contains("expected at most 256 arguments, found `k256`"), "{error}");
}

#[test]
fn errors_about_long_texts_are_short() {
    for text in [format!("s:{}=", "a".repeat(60_000)), format!("s::{}", "a".repeat(60_000)), "\"".repeat(60_000)] {
        assert!(error(&text).len() < 1500, "{}", error(&text).len());
    }
}
