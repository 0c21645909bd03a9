//! Specs, their lines, and arguments checked against them.

use super::{ArgValue, Args};
use crate::{
    Error,
    plugin::args::{ArgKind, ArgSpec, check, complete},
};

fn specs() -> Vec<ArgSpec> {
    vec![
        ArgSpec::new("layout", ArgKind::choice(["auto", "flat", "pc"]))
            .default("auto")
            .help("where memory lies: in the file"),
        ArgSpec::new("cache", ArgKind::Size).help("bytes of the page cache"),
        ArgSpec::new("delay", ArgKind::Time),
        ArgSpec::new("partial", ArgKind::Flag).default("false").help("open images that were cut short"),
    ]
}

fn check_text(text: &str) -> Result<(), String> {
    check(&specs(), &text.parse().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn known_arguments_of_their_kind_pass() {
    for text in ["", "layout=flat", "partial,cache=1MiB,delay=0s", "partial=no", "cache=0x1000"] {
        assert_eq!(check_text(text), Ok(()), "{text}");
    }
}

const ACCEPTED: &str = "accepted: layout=auto|flat|pc (where memory lies: in the file), cache=SIZE (bytes of the page cache), \
                        delay=TIME, partial (open images that were cut short)";

/// memflow 0.2.4 had validators, which nothing but a plugin's good will called.
#[test]
fn unknown_argument_lists_what_is_accepted() {
    assert_eq!(
        check_text("caceh=1MiB").unwrap_err(),
        format!("unknown argument `caceh`, did you mean `cache`?; {ACCEPTED}")
    );
    assert_eq!(check_text("zzz=1").unwrap_err(), format!("unknown argument `zzz`; {ACCEPTED}"));
    assert_eq!(check_text("\"a b\"").unwrap_err(), format!("unknown argument `a b`; {ACCEPTED}"));
    let error = check(&[], &Args::new().with("x", true)).unwrap_err().to_string();
    assert_eq!(error, "unknown argument `x`; accepted: none");
}

#[test]
fn long_unknown_argument_costs_nothing() {
    let error = check(&specs(), &Args::new().with("x".repeat(60_000), true)).unwrap_err();
    assert!(matches!(&error, Error::UnknownArgument { meant: None, .. }));
    assert!(error.to_string().len() < 1000);
}

#[test]
fn wrong_kind_names_expected_and_found() {
    assert_eq!(check_text("layout=pcc").unwrap_err(), "argument `layout`: expected one of auto, flat, pc, found `pcc`");
    assert_eq!(
        check_text("layout").unwrap_err(),
        "argument `layout`: expected one of auto, flat, pc, as `layout=…`, found `layout`"
    );
    assert!(check_text("cache").is_err());
    assert!(check_text("delay=5").unwrap_err().starts_with("argument `delay`: expected a time"));
    assert!(check_text("partial=2").is_err());
}

#[test]
fn missing_argument_is_named() {
    let specs =
        [ArgSpec::new("vm", ArgKind::Text).required().help("name of the machine"), ArgSpec::new("x", ArgKind::Flag)];
    assert_eq!(check(&specs, &Args::new()).unwrap_err().to_string(), "missing argument vm=TEXT (name of the machine)");
    assert!(check(&specs, &Args::new().with("vm", "a")).is_ok());
}

#[test]
fn defaults_fill_what_was_not_given() {
    let all = complete(&specs(), &Args::new().with("cache", 1u64)).unwrap();
    assert_eq!(all.to_string(), "cache=1,layout=auto,partial=false");
    assert_eq!(complete(&specs(), &Args::new().with("layout", "pc")).unwrap().text("layout").unwrap(), Some("pc"));
    assert!(complete(&specs(), &Args::new().with("nope", true)).is_err());
}

#[test]
fn lines_have_four_fields() {
    let lines = [
        "layout:choice(auto|flat|pc):auto:where memory lies: in the file",
        "cache:size::bytes of the page cache",
        "delay:time::",
        "partial:flag:false:open images that were cut short",
    ];
    assert_eq!(specs().iter().map(ToString::to_string).collect::<Vec<_>>(), lines);
    assert_eq!(lines.map(|line| line.parse::<ArgSpec>().unwrap()).to_vec(), specs());
    let spec: ArgSpec = r"file:path:C\:\\a.raw:a \ is itself here: always".parse().unwrap();
    assert_eq!((&*spec.default, &*spec.help), (r"C:\a.raw", r"a \ is itself here: always"));
    assert!("vm:text!::name".parse::<ArgSpec>().unwrap().required);
}

#[test]
fn plugin_names_each_argument_once() {
    assert_eq!(ArgSpec::parse_all(["a:text::", "b:flag::"]).unwrap().len(), 2);
    let error = ArgSpec::parse_all(["a:text::", "b:flag::", "a:size::"]).unwrap_err().to_string();
    assert_eq!(error, "line of a plugin's argument: expected argument `a` once, found `a:size::`");
    let lines: Vec<String> = (0..257).map(|index| format!("a{index}:text::")).collect();
    assert_eq!(ArgSpec::parse_all(lines.iter().take(256).map(String::as_str)).unwrap().len(), 256);
    let error = ArgSpec::parse_all(lines.iter().map(String::as_str)).unwrap_err().to_string();
    assert!(error.contains("expected at most 256 arguments, found `a256:text::`"), "{error}");
}

/// Found by fuzzing: the default of the second one was checked against the kind of the first.
#[test]
fn same_name_twice_takes_the_default_of_the_first() {
    let first = ArgSpec::new("delay", ArgKind::Size);
    let second = ArgSpec::new("delay", ArgKind::Time).default("0s");
    let specs = [first, second];
    let all = complete(&specs, &Args::new()).unwrap();
    assert!(all.is_empty());
    check(&specs, &all).unwrap();
}

#[test]
fn malformed_lines_are_refused() {
    let long = format!("a:text::{}", "x".repeat(5000));
    let many = format!("a:choice({})::", ["w"; 300].join("|"));
    let cases = [
        ("", "expected name:kind:default:help"),
        ("a", "expected name:kind:default:help"),
        ("a:text", "expected name:kind:default:help"),
        ("a:text:x", "expected name:kind:default:help"),
        (":text::", "argument `` of a plugin: expected a lower-case letter"),
        ("A:text::", "argument `A` of a plugin: expected a lower-case letter"),
        ("a b:text::", "expected a lower-case letter"),
        (
            "a:string::",
            "kind of an argument: expected text, path, flag, number, size, time or choice(a|b|c), found `string`",
        ),
        ("a:text!!::", "found `text!`"),
        ("a:choice()::", "choices of an argument: expected words of letters"),
        ("a:choice(x||y)::", "expected words of letters"),
        ("a:choice(x|x)::", "expected each word once, found `x`"),
        ("a:choice(x::", "found `choice(x`"),
        ("a:size:1kb:", "argument `a` of a plugin: expected a size below 2^64 bytes"),
        ("a:choice(x|y):z:", "expected one of x, y as default, found `z`"),
        ("a:text!:x:", "expected no default, as it must be given, found `x`"),
        (r"a:text:\n:", r"only \: and \\ with a backslash in the default"),
        ("a:text:\\", "with a backslash in the default"),
        ("a:text::two\nlines", "expected text without line breaks"),
        (long.as_str(), "expected at most 4096 bytes"),
        (many.as_str(), "expected 1 to 256 words, found `257`"),
    ];
    for (line, expected) in cases {
        let error = line.parse::<ArgSpec>().unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
        assert!(error.len() < 1000 && !error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn specs_from_code_are_validated() {
    assert!(specs().iter().all(|spec| spec.validate().is_ok()));
    for bad in [
        ArgSpec::new("a:b", ArgKind::Text),
        ArgSpec::new("a", ArgKind::choice(["x|y"])),
        ArgSpec::new("a", ArgKind::choice([""; 0])),
        ArgSpec::new("a", ArgKind::Flag).default("maybe"),
        ArgSpec::new("a", ArgKind::Text).help("two\nlines"),
        ArgSpec::new("a", ArgKind::Text).help("x".repeat(5000)),
    ] {
        assert!(bad.validate().is_err(), "{bad:?}");
    }
    assert!(ArgKind::Flag.accepts(&ArgValue::Bare) && !ArgKind::Text.accepts(&ArgValue::Bare));
}
