//! Typed access, and the builder.

use std::{ffi::OsStr, path::Path, time::Duration};

use super::{ArgValue, Args};
use crate::{
    Error,
    plugin::args::ArgKind,
    units::{Size, Time},
};

fn args(text: &str) -> Args {
    text.parse().unwrap()
}

#[test]
fn code_and_text_give_the_same_arguments() {
    let built = Args::new()
        .with("layout", "flat")
        .with("cache", Size(16 << 20))
        .with("delay", Duration::from_micros(5))
        .with("wait", Time(Duration::from_secs(2)))
        .with("base", 4096u64)
        .with("cpus", 4u32)
        .with("partial", true)
        .with("metrics", false)
        .with("file", ArgValue::path(Path::new("/a:b")).unwrap())
        .with("name", String::from("x y"));
    let text =
        "layout=flat,cache=16MiB,delay=5us,wait=2s,base=4096,cpus=4,partial,metrics=false,file=\"/a:b\",name=x y";
    assert_eq!(built.to_string(), text);
    assert_eq!(built, args(text));
}

#[test]
fn values_are_read_as_their_kind() {
    let args = args("layout=flat,cache=16MiB,delay=5us,base=0x1000,partial,file=/a b,mode=-7");
    assert_eq!(args.text("layout").unwrap(), Some("flat"));
    assert_eq!(args.size("cache").unwrap(), Some(16 << 20));
    assert_eq!(args.time("delay").unwrap(), Some(Duration::from_micros(5)));
    assert_eq!(args.number("base").unwrap(), Some(4096));
    assert_eq!(args.flag("partial").unwrap(), Some(true));
    assert_eq!(args.path("file").unwrap().as_deref(), Some(Path::new("/a b")));
    assert_eq!(args.parse::<i32>("mode", "a mode").unwrap(), Some(-7));
    assert_eq!(args.text("none").unwrap(), None);
    assert_eq!(args.flag("none").unwrap(), None);
    assert_eq!(args.parse::<i32>("none", "a mode").unwrap(), None);
}

#[test]
fn negative_number_is_refused_as_the_text_would_be() {
    let built = Args::new().with("base", -4096).with("cache", 16 << 20);
    assert_eq!(built.size("cache").unwrap(), Some(16 << 20));
    let error = built.number("base").unwrap_err().to_string();
    assert_eq!(error, args("base=-4096").number("base").unwrap_err().to_string());
    assert!(error.ends_with("found `-4096`"), "{error}");
}

#[test]
fn flags_have_names_for_on_and_off() {
    for on in ["x", "x=true", "x=yes", "x=on", "x=1"] {
        assert_eq!(args(on).flag("x").unwrap(), Some(true), "{on}");
    }
    for off in ["x=false", "x=no", "x=off", "x=0"] {
        assert_eq!(args(off).flag("x").unwrap(), Some(false), "{off}");
    }
    for bad in ["x=True", "x=2", "x=\"\"", "x=01"] {
        assert!(args(bad).flag("x").is_err(), "{bad}");
    }
}

#[test]
fn errors_name_argument_kind_and_value() {
    let args = args("cache=16mb,delay=5,base=10ff,partial=maybe,layout,file=\"\",mode=x");
    let text = |error: Error| error.to_string();
    assert_eq!(
        text(args.size("cache").unwrap_err()),
        "argument `cache`: expected a size below 2^64 bytes (a decimal number with B, KiB, MiB, GiB or TiB, or bytes alone), \
         found `16mb`"
    );
    assert_eq!(
        text(args.time("delay").unwrap_err()),
        "argument `delay`: expected a time (a decimal number with ns, us, ms, s or min), found `5`"
    );
    assert_eq!(
        text(args.number("base").unwrap_err()),
        "argument `base`: expected a number below 2^64 (decimal, or hexadecimal with 0x), found `10ff`"
    );
    assert_eq!(
        text(args.flag("partial").unwrap_err()),
        "argument `partial`: expected the name alone, or true, yes, on, 1, false, no, off or 0, found `maybe`"
    );
    assert_eq!(
        text(args.text("layout").unwrap_err()),
        "argument `layout`: expected a text, as `layout=…`, found `layout`"
    );
    assert_eq!(
        text(args.path("file").unwrap_err()),
        "argument `file`: expected a path (not empty, without NUL), found ``"
    );
    assert_eq!(
        text(args.parse::<u8>("mode", "a mode from 0 to 255").unwrap_err()),
        "argument `mode`: expected a mode from 0 to 255 (invalid digit found in string), found `x`"
    );
}

#[test]
fn arguments_are_replaced_and_removed() {
    let mut list = Args::new().with("a", 1u64).with("b", 2u64).with("a", 3u64);
    assert_eq!(list.to_string(), "a=3,b=2");
    assert_eq!(list.set("b", true), Some(ArgValue::Text("2".into())));
    assert_eq!(list.remove("a"), Some(ArgValue::Text("3".into())));
    assert_eq!(list.remove("a"), None);
    assert_eq!((list.len(), list.is_empty(), list.get("b")), (1, false, Some(&ArgValue::Bare)));
}

#[cfg(unix)]
#[test]
fn path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let error = ArgValue::path(Path::new(OsStr::from_bytes(b"/a\xff"))).unwrap_err().to_string();
    assert!(error.contains("expected a path in UTF-8"), "{error}");
}

/// What `accepts` lets through, the getter of the kind reads.
#[test]
fn kinds_accept_what_getters_read() {
    for text in ["", "x", "true", "0", "10", "0x10", "1MiB", "5us", "5", "\0", "16777216TiB", "min"] {
        for value in [ArgValue::Bare, ArgValue::from(text)] {
            let list = Args::new().with("k", value.clone());
            let reads = [
                (ArgKind::Text, list.text("k").is_ok()),
                (ArgKind::Path, list.path("k").is_ok()),
                (ArgKind::Flag, list.flag("k").is_ok()),
                (ArgKind::Number, list.number("k").is_ok()),
                (ArgKind::Size, list.size("k").is_ok()),
                (ArgKind::Time, list.time("k").is_ok()),
            ];
            for (kind, reads) in reads {
                assert_eq!(kind.accepts(&value), reads, "{kind} {value:?}");
            }
        }
    }
}
