//! Targets for what users and plugins write about arguments.
//!
//! Owns: that what was accepted is read back as the same value, and that what is refused is told in a line.
//! Must not know: the grammar.

use std::{fmt, str::FromStr};

use memflow_core::{
    Error,
    plugin::args::{ArgSpec, ArgValue, Args, ConnectorSpec, OsSpec, check, complete},
    units::{Size, Time, number},
};

/// Longest text of an error, in bytes.
const MAX_ERROR: usize = 8 << 10;

/// Target strings, lists of arguments, numbers, sizes and times.
pub fn args(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    read_back::<OsSpec>(&text);
    if let Some(args) = read_back::<Args>(&text) {
        read_values(&args);
    }
    if let Some(spec) = read_back::<ConnectorSpec>(&text) {
        read_values(spec.args());
        // Any text can be a target, a key and a value.
        let any = Args::new().with(&*text, spec.name()).with("value", &*text).with("flag", true);
        if let Ok(args) = any.to_string().parse::<Args>() {
            assert_eq!(args, any);
        }
    }
    let written = Args::new().with("value", &*text).to_string();
    match written.parse::<Args>() {
        Ok(args) => assert_eq!(args.get("value"), Some(&ArgValue::from(&*text)), "{written}"),
        Err(error) => assert!(written.len() > memflow_core::plugin::args::MAX_TEXT, "{error}"),
    }
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse(), Ok(size));
        assert!(number(&text).is_ok_and(|number| number == size.0) || text.ends_with('B'));
    }
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string().parse(), Ok(time));
        assert!(number(&text).is_err(), "a time without unit");
    }
}

/// Lines of descriptors that describe arguments: one spec to a line.
pub fn arg_specs(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let specs: Vec<ArgSpec> = text.lines().filter_map(read_back::<ArgSpec>).collect();
    for spec in &specs {
        spec.validate().expect("what is read is valid");
    }
    if let Ok(all) = ArgSpec::parse_all(text.lines()) {
        assert_eq!(all, specs);
    }
    // An unknown argument is told whatever the specs are; defaults are of their kind.
    if let Err(error) = check(&specs, &Args::new().with("unknown argument", true)) {
        assert!(matches!(error, Error::UnknownArgument { .. }));
    }
    match complete(&specs, &Args::new()) {
        Ok(args) => check(&specs, &args).expect("defaults are accepted"),
        Err(error) => assert!(matches!(error, Error::MissingArgument { .. }), "{error}"),
    }
}

/// Reads a text, and what is written for it.
fn read_back<T: FromStr<Err = Error> + PartialEq + fmt::Display + fmt::Debug>(text: &str) -> Option<T> {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            match written.parse::<T>() {
                Ok(again) => assert_eq!(again, value, "{written}"),
                // Escapes are longer than what they stand for.
                Err(error) => assert!(written.len() > memflow_core::plugin::args::MAX_TEXT, "{written}: {error}"),
            }
            Some(value)
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() <= MAX_ERROR && !text.contains(char::is_control), "{text:?}");
            None
        }
    }
}

/// No value upsets a getter.
fn read_values(args: &Args) {
    for (key, value) in args.iter() {
        let flag = args.flag(key);
        assert!(value.text().is_some() || matches!(flag, Ok(Some(true))));
        let read = [args.number(key).is_ok(), args.size(key).is_ok(), args.time(key).is_ok(), args.path(key).is_ok()];
        assert!(args.text(key).is_ok() || read == [false; 4], "a name alone has no value");
    }
}
