//! What connectors list that could be opened now.
//!
//! Owns: which connectors are asked, and what a plain name means. Must not know: files, commands.
//! Keeps: a name that several connectors have is never opened with one of them.

use memflow_core::{
    Error,
    plugin::{Inventory, TargetInfo, args::ConnectorSpec, descriptor::PluginKind},
};

use crate::{
    failure::{Failure, Outcome},
    output::{Io, escape, plural},
    progress,
};

/// A target that a connector lists.
#[derive(Debug)]
pub(crate) struct Found {
    /// What opens it.
    pub(crate) spec: ConnectorSpec,
    /// What the connector says of it.
    pub(crate) info: TargetInfo,
}

/// What was listed.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) targets: Vec<Found>,
    /// Of connectors that could not say what there is.
    pub(crate) problems: Vec<Error>,
    /// How many connectors list targets.
    pub(crate) asked: usize,
}

/// Asks the connectors, or the one that is named, for what they could open now. Loads those that are in files.
pub(crate) fn listed(inventory: &Inventory, only: Option<&str>, io: &Io<'_>) -> Listed {
    progress::spin(io.quiet(), "asking the connectors for targets", || ask(inventory, only))
}

fn ask(inventory: &Inventory, only: Option<&str>) -> Listed {
    let connectors = inventory.plugins().iter().map(|plugin| plugin.descriptor());
    let connectors = connectors.filter(|descriptor| descriptor.kind == PluginKind::Connector);
    let mut names: Vec<&str> = connectors.map(|descriptor| &*descriptor.name).collect();
    names.sort_unstable();
    // Of several versions, the one that a target string without a version means.
    names.dedup();
    let mut listed = Listed::default();
    for name in names.into_iter().filter(|name| only.is_none_or(|only| only == *name)) {
        let answer = inventory.find(PluginKind::Connector, name, None).and_then(|plugin| plugin.targets());
        match answer {
            Ok(None) => continue,
            Ok(Some(targets)) => {
                for info in targets {
                    match ConnectorSpec::new(name) {
                        Ok(spec) => listed.targets.push(Found { spec: spec.with_target(&*info.name), info }),
                        Err(error) => listed.problems.push(error),
                    }
                }
            }
            Err(error) => listed.problems.push(error.context(format!("connector {name}"))),
        }
        listed.asked += 1;
    }
    listed
}

/// The target that goes by a plain name.
///
/// # Errors
/// When no connector lists it, or more than one does.
pub(crate) fn named(name: &str, inventory: &Inventory, io: &mut Io<'_>) -> Outcome<ConnectorSpec> {
    let Listed { targets, problems, .. } = listed(inventory, None, io);
    let mut specs: Vec<ConnectorSpec> =
        targets.into_iter().filter(|found| found.info.name == name).map(|found| found.spec).collect();
    // Of two that one connector has under one name, that connector says how to tell them apart.
    specs.dedup();
    match (specs.pop(), specs.is_empty()) {
        (Some(spec), true) => {
            for problem in problems {
                io.note(format_args!("it was not asked whether there is another {}: {problem}", escape(name)));
            }
            Ok(spec)
        }
        (Some(last), false) => {
            specs.push(last);
            let choices: Vec<String> = specs.iter().map(|spec| format!("-c {}", quoted(&spec.to_string()))).collect();
            let several = plural(choices.len() as u64, "connector");
            Err(Failure::Usage(format!("{name} is a target of {several}; say which: {}", choices.join(" or "))))
        }
        (None, _) => {
            let failed: String = problems.iter().map(|problem| format!("; {problem}")).collect();
            let problem =
                format!("no such file, and no connector lists a target of that name (see `memflow targets`){failed}");
            Err(Failure::Target(Error::File { path: name.into(), problem: problem.into() }))
        }
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@,=+".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_single_words_of_a_shell() {
        assert_eq!(quoted("qemu:vm-1"), "qemu:vm-1");
        assert_eq!(quoted("qemu:two words"), "'qemu:two words'");
        assert_eq!(quoted("qemu:it's"), "'qemu:it'\\''s'");
    }
}
