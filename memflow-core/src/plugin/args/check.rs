//! Arguments against what a plugin takes.
//!
//! Owns: which argument is unknown, missing or of the wrong kind, and what is said about it.
//! Must not know: how arguments are written, what they are for.
//! Keeps: after a check each argument is known and its getter succeeds.

use super::{ArgSpec, ArgValue, Args, list::wrong_value, quote::shorten};
use crate::error::{Error, Result};

/// Most letters that may differ between a name and the one that was probably meant.
const NEAR: usize = 2;
/// Longest name for which a near one is looked for: what is longer is no slip.
const MAX_MISSPELT: usize = 64;

/// Checks that every argument is one of `specs` and of its kind, and that none that is required is missing.
///
/// # Errors
/// For the first argument that is wrong: [`Error::UnknownArgument`] with all that are accepted, [`Error::Argument`] for a value of
/// the wrong kind, and [`Error::MissingArgument`].
pub fn check(specs: &[ArgSpec], args: &Args) -> Result<()> {
    for (key, value) in args.iter() {
        let Some(spec) = specs.iter().find(|spec| spec.name == key) else { return Err(unknown(specs, key)) };
        if !spec.kind.accepts(value) {
            return Err(wrong_value(key, spec.kind.accepted(), Some(value)));
        }
    }
    match specs.iter().find(|spec| spec.required && args.get(&spec.name).is_none()) {
        Some(missing) => Err(Error::MissingArgument { usage: missing.usage(), help: shorten(&missing.help) }),
        None => Ok(()),
    }
}

/// [Checks](check) the arguments, and adds those that were not given and have a default.
///
/// # Errors
/// As [`check`].
pub fn complete(specs: &[ArgSpec], args: &Args) -> Result<Args> {
    check(specs, args)?;
    let mut all = args.clone();
    for spec in specs.iter().filter(|spec| !spec.default.is_empty()) {
        // Of two specs with one name the first counts, here and in the check.
        if all.get(&spec.name).is_none() && specs.iter().find(|first| first.name == spec.name) == Some(spec) {
            all.set(spec.name.clone(), ArgValue::from(&*spec.default));
        }
    }
    Ok(all)
}

fn unknown(specs: &[ArgSpec], key: &str) -> Error {
    let names = specs.iter().map(|spec| &*spec.name);
    Error::UnknownArgument {
        name: shorten(key),
        meant: nearest(key, names).map(str::to_owned),
        accepted: accepted(specs),
    }
}

/// All arguments in one line, with what they do.
fn accepted(specs: &[ArgSpec]) -> String {
    let entries = specs.iter().map(|spec| match &*spec.help {
        "" => spec.usage(),
        help => format!("{} ({help})", spec.usage()),
    });
    entries.collect::<Vec<_>>().join(", ")
}

/// The name that is spelt most like `key`, if there is one that could have been meant.
fn nearest<'n>(key: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if key.len() > MAX_MISSPELT {
        return None;
    }
    let distances = names.map(|name| (strsim::damerau_levenshtein(key, name), name));
    // A short name differs from every other short one in few letters.
    let near = |(distance, name): &(usize, &str)| *distance <= NEAR && *distance < name.len().min(key.len());
    distances.filter(near).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}
