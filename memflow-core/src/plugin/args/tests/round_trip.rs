//! What is written is read back as the same value.

use std::time::Duration;

use proptest::prelude::*;

use super::{ArgValue, Args, ConnectorSpec, OsSpec};
use crate::{
    plugin::args::{ArgKind, ArgSpec, check},
    units::Size,
};

/// Any text, often one of characters that mean something.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"[:,='"\\ \n\ta/C{}u@!|]{0,12}"#,
        r"[a-zA-Z]:[\\/][a-z:, =]{0,8}",
        "[a-z0-9./_-]{0,16}"
    ]
}

fn value() -> impl Strategy<Value = ArgValue> {
    prop_oneof![1 => Just(ArgValue::Bare), 4 => text().prop_map(ArgValue::Text)]
}

fn args() -> impl Strategy<Value = Args> {
    let key = prop_oneof![3 => "[a-z][a-z0-9_-]{0,8}".boxed(), 1 => text().boxed()];
    prop::collection::vec((key, value()), 0..6)
        .prop_map(|entries| entries.into_iter().fold(Args::new(), |args, (key, value)| args.with(key, value)))
}

fn spec() -> impl Strategy<Value = ArgSpec> {
    let words = prop::collection::btree_set("[A-Za-z0-9_.+-]{1,6}", 1..5);
    let kind = prop_oneof![
        Just((ArgKind::Text, String::new())),
        r"[a-z:\\ =|!()]{0,10}".prop_map(|default| (ArgKind::Text, default)),
        r"C:\\[a-z:\\]{0,10}".prop_map(|default| (ArgKind::Path, default)),
        any::<bool>().prop_map(|default| (ArgKind::Flag, default.to_string())),
        any::<u64>().prop_map(|default| (ArgKind::Number, default.to_string())),
        any::<u32>().prop_map(|default| (ArgKind::Size, format!("{default}KiB"))),
        any::<u32>().prop_map(|default| (ArgKind::Time, format!("{default}ms"))),
        words.prop_map(|words| (ArgKind::choice(words.clone()), words.into_iter().next().unwrap_or_default())),
    ];
    ("[a-z][a-z0-9_-]{0,20}", kind, any::<bool>(), r"[^\p{Cc}]{0,30}").prop_map(
        |(name, (kind, default), required, help)| {
            let spec = ArgSpec::new(name, kind).help(help);
            if required { spec.required() } else { spec.default(default) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connectors(target in prop::option::of(text()), version in prop::option::of("[0-9A-Za-z][0-9A-Za-z.+_-]{0,10}"), args in args()) {
        let mut spec = ConnectorSpec::new("snapshot").unwrap().with_args(args);
        if let Some(version) = version {
            spec = spec.with_version(version).unwrap();
        }
        if let Some(target) = target {
            spec = spec.with_target(target);
        }
        let text = spec.to_string();
        prop_assert!(!text.contains(char::is_control), "{text:?}");
        prop_assert_eq!(text.parse::<ConnectorSpec>().map_err(|error| TestCaseError::fail(error.to_string()))?, spec, "{}", text);
    }

    #[test]
    fn typed_values_from_code(target in text(), texts in text(), number in any::<u64>(), size in any::<u64>(), time in any::<u64>(), flags in any::<[bool; 2]>()) {
        let (size, time) = (Size(size), Duration::from_nanos(time));
        let built = ConnectorSpec::new("snapshot").unwrap()
            .with_target(target.clone())
            .with_arg("text", texts.clone())
            .with_arg("number", number)
            .with_arg("size", size)
            .with_arg("time", time)
            .with_arg("one", flags[0])
            .with_arg("other", flags[1]);
        let read: ConnectorSpec = built.to_string().parse().map_err(|error: crate::Error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&read, &built);
        let args = read.args();
        prop_assert_eq!((read.target(), args.text("text").unwrap()), (Some(&*target), Some(&*texts)));
        prop_assert_eq!((args.number("number").unwrap(), args.size("size").unwrap()), (Some(number), Some(size.0)));
        prop_assert_eq!(args.time("time").unwrap(), Some(time));
        prop_assert_eq!([args.flag("one").unwrap(), args.flag("other").unwrap()], flags.map(Some));
    }

    /// What code gives is checked as what is typed.
    #[test]
    fn verdict_is_the_same_for_code_and_text(spec in spec(), value in value(), number in any::<i64>(), time in any::<u32>()) {
        let time = Duration::from_millis(time.into());
        for value in [value, number.into(), time.into(), true.into()] {
            let built = OsSpec::new("linux").unwrap().with_arg(spec.name.clone(), value);
            let read: OsSpec = built.to_string().parse().unwrap();
            let verdict = |spec_of: &OsSpec| check(std::slice::from_ref(&spec), spec_of.args()).map_err(|error| error.to_string());
            prop_assert_eq!(verdict(&built), verdict(&read));
        }
    }

    #[test]
    fn os_layers_and_lists(args in args()) {
        let spec = OsSpec::new("linux").unwrap().with_args(args.clone());
        prop_assert_eq!(spec.to_string().parse::<OsSpec>().unwrap(), spec);
        prop_assert_eq!(args.to_string().parse::<Args>().unwrap(), args);
    }

    #[test]
    fn accepted_text_means_the_same_when_written_again(text in text(), list in r#"[a-c:,='"\\]{0,12}"#) {
        for text in [format!("s:{text}"), text, list.clone(), format!("s:{list}"), format!("s::{list}")] {
            if let Ok(spec) = text.parse::<ConnectorSpec>() {
                prop_assert_eq!(spec.to_string().parse::<ConnectorSpec>().unwrap(), spec);
            }
            if let Ok(args) = text.parse::<Args>() {
                prop_assert_eq!(args.to_string().parse::<Args>().unwrap(), args);
            }
        }
    }

    #[test]
    fn specs(spec in spec()) {
        spec.validate().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(spec.to_string().parse::<ArgSpec>().unwrap(), spec);
    }

    #[test]
    fn lines_that_are_accepted_are_valid(line in r"[a-c]{0,2}:(text|path|flag|size|time|choice\([a-c|:!]{0,6}\))!{0,2}:[a-c:\\0-9]{0,6}:?[a-c:\\]{0,4}", noise in any::<String>()) {
        for line in [line, noise] {
            if let Ok(spec) = line.parse::<ArgSpec>() {
                prop_assert!(spec.validate().is_ok());
                prop_assert_eq!(spec.to_string().parse::<ArgSpec>().unwrap(), spec);
            }
        }
    }
}
