//! Tests of the grammar, of typed access and of specs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod malformed;
mod round_trip;
mod specs;
mod typed;

use super::{ArgValue, Args, ConnectorSpec, OsSpec};

fn connector(text: &str) -> ConnectorSpec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Name, version and target of a connector, and its arguments as they are written.
fn parts(text: &str) -> (String, Option<String>, Option<String>, String) {
    let spec = connector(text);
    let owned = |part: Option<&str>| part.map(str::to_owned);
    (spec.name().to_owned(), owned(spec.version()), owned(spec.target()), spec.args().to_string())
}

fn target_of(text: &str) -> Option<String> {
    connector(text).target().map(str::to_owned)
}

#[test]
fn each_part_may_be_left_out() {
    let some = |text: &str| Some(text.to_owned());
    let name = "qemu".to_owned();
    assert_eq!(parts("qemu"), (name.clone(), None, None, String::new()));
    assert_eq!(parts("qemu@1.2.3-rc.1+x"), (name.clone(), some("1.2.3-rc.1+x"), None, String::new()));
    assert_eq!(parts("qemu:vm1"), (name.clone(), None, some("vm1"), String::new()));
    assert_eq!(parts("qemu::cache=1MiB"), (name.clone(), None, None, "cache=1MiB".into()));
    assert_eq!(parts("qemu@0.1:vm1:a,b=2"), (name, some("0.1"), some("vm1"), "a,b=2".into()));
    let os: OsSpec = "linux@6:kaslr=0x1000,strict".parse().unwrap();
    assert_eq!((os.name(), os.version(), os.args().len()), ("linux", Some("6"), 2));
    assert_eq!(os.args().get("strict"), Some(&ArgValue::Bare));
    assert!("linux".parse::<OsSpec>().unwrap().args().is_empty());
    assert!("".parse::<Args>().unwrap().is_empty());
}

/// memflow 0.2.4 opened `C` for `C:\dump.raw`.
#[test]
fn paths_of_windows_need_no_quotes() {
    let spec = connector(r"snapshot:C:\dumps\a.raw:layout=flat");
    assert_eq!(spec.target(), Some(r"C:\dumps\a.raw"));
    assert_eq!(spec.args().text("layout").unwrap(), Some("flat"));
    assert_eq!(target_of("snapshot:d:/dumps/a b.raw").as_deref(), Some("d:/dumps/a b.raw"));
    assert_eq!(target_of(r"snapshot:\\server\share\a.raw").as_deref(), Some(r"\\server\share\a.raw"));
    assert_eq!(target_of(r"snapshot:C:\dumps\").as_deref(), Some(r"C:\dumps\"));
    let spec = connector(r"x::file=C:\a.raw,other=D:\b.raw");
    assert_eq!(spec.args().text("other").unwrap(), Some(r"D:\b.raw"));
}

#[test]
fn quotes_keep_every_character() {
    let spec = connector(r#"snapshot:"/x:y=z,w":partial"#);
    assert_eq!(spec.target(), Some("/x:y=z,w"));
    assert_eq!(spec.args().flag("partial").unwrap(), Some(true));
    assert_eq!(target_of(r#"snapshot:'say "a:b"\'"#).as_deref(), Some(r#"say "a:b"\"#));
    assert_eq!(target_of(r#"snapshot:"it's \"C:\\a\"""#).as_deref(), Some(r#"it's "C:\a""#));
    assert_eq!(target_of(r#"snapshot:"\u{a}\u{1F600}""#).as_deref(), Some("\n😀"));
    assert_eq!(target_of("snapshot:\"a\nb\"").as_deref(), Some("a\nb"));
    assert_eq!(target_of(r#"snapshot:"""#).as_deref(), Some(""));
    let args: Args = r#"a="x,y=z:",b='',c=" ""#.parse().unwrap();
    assert_eq!(args.text("a").unwrap(), Some("x,y=z:"));
    assert_eq!(args.text("b").unwrap(), Some(""));
    assert_eq!(args.text("c").unwrap(), Some(" "));
}

#[test]
fn display_quotes_only_what_needs_it() {
    let written = |target: &str| ConnectorSpec::new("s").unwrap().with_target(target).to_string();
    assert_eq!(written("/a b/ü.raw"), "s:/a b/ü.raw");
    assert_eq!(written(r"C:\a.raw"), r"s:C:\a.raw");
    assert_eq!(written("C:a.raw"), r#"s:"C:a.raw""#);
    assert_eq!(written("/a:b,c=d"), r#"s:"/a:b,c=d""#);
    assert_eq!(written(r"C:\a,b.raw"), r"s:'C:\a,b.raw'");
    assert_eq!(written(r"C:\a\"), r"s:'C:\a\'");
    assert_eq!(written("it's"), r#"s:"it's""#);
    assert_eq!(written("a\tb'\""), r#"s:"a\u{9}b'\"""#);
    assert_eq!(written(""), r#"s:"""#);
    let args = Args::new().with("a b", "x").with("on", true).with("off", false).with("empty", "");
    assert_eq!(ConnectorSpec::new("s").unwrap().with_args(args).to_string(), r#"s::"a b"=x,on,off=false,empty="""#);
}

/// The `Display` of memflow 0.2.4 wrote arguments in random order.
#[test]
fn arguments_keep_their_order() {
    let text = "z=1,a=2,m=3,b=4,y=5,c=6";
    assert_eq!(text.parse::<Args>().unwrap().to_string(), text);
    let args: Args = text.parse().unwrap();
    assert_eq!(args.iter().map(|(key, _)| key).collect::<String>(), "zambyc");
}

#[test]
fn names_and_versions_from_code_are_checked() {
    for name in ["", "Qemu", "-a", "_a", "a b", "a:b", "é", "a".repeat(33).as_str()] {
        assert!(ConnectorSpec::new(name).is_err(), "{name}");
        assert!(OsSpec::new(name).is_err(), "{name}");
    }
    for name in ["a", "0", "kvm-2_x", "a".repeat(32).as_str()] {
        assert_eq!(ConnectorSpec::new(name).unwrap().name(), name);
    }
    for version in ["", ":", "1:2", "1 2", "-1", "1".repeat(65).as_str()] {
        let error = OsSpec::new("linux").unwrap().with_version(version).unwrap_err().to_string();
        assert!(error.starts_with("version of plugin linux: expected letters, digits"), "{error}");
    }
}
