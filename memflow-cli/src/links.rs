//! The links of a chain on the command line: `-c` and `-o`, repeated.
//!
//! Owns: their order, which OS layer stands where none is named, and a `-c` in the place of TARGET.
//! Must not know: targets, what plugins there are.
//! Keeps: the order in which the options were given; two OS layers in a row are refused.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use memflow_core::{
    Error,
    plugin::args::{ConnectorSpec, OsSpec},
};

use crate::failure::{Failure, Outcome};

/// The OS layer where none is named.
const DEFAULT_OS: &str = "linux";
/// OS layers that are tried at the end of a chain where none is named and the first does not find its system.
const OTHER_OS: [&str; 1] = ["win32"];
const CONNECTOR: &str = "connector";
const OS: &str = "os";
/// Begins a TARGET that was a `-c`. No word of a command line holds it; only [`target_first`] writes it.
pub(crate) const AS_CONNECTOR: &str = "\0";

/// The options `-c` and `-o` as they were given.
#[derive(Clone, Default, Debug)]
pub(crate) struct LinkArgs {
    links: Vec<Link>,
}

#[derive(Clone, Debug)]
enum Link {
    Connector(ConnectorSpec),
    Os(OsSpec),
}

/// What comes after the first connector.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    /// OS layers and the connectors behind them.
    pub(crate) inner: Vec<(OsSpec, ConnectorSpec)>,
    /// The last OS layer.
    pub(crate) os: OsSpec,
    /// Those that may take its place; none if it was named.
    pub(crate) others: Vec<OsSpec>,
}

impl Rest {
    /// The same with other OS layers.
    pub(crate) fn with_os(self, mut change: impl FnMut(OsSpec) -> OsSpec) -> Self {
        let inner = self.inner.into_iter().map(|(os, connector)| (change(os), connector)).collect();
        Self { inner, os: change(self.os), others: self.others.into_iter().map(change).collect() }
    }
}

impl LinkArgs {
    /// The links after the first connector, with an OS layer behind each connector.
    pub(crate) fn rest(&self) -> Outcome<Rest> {
        let spec = |name| OsSpec::new(name).map_err(|error: Error| Failure::Usage(error.to_string()));
        let default = || spec(DEFAULT_OS);
        let mut inner = Vec::new();
        let mut os: Option<OsSpec> = None;
        for link in &self.links {
            match link {
                Link::Connector(connector) => {
                    let before = os.take().map_or_else(default, Ok)?;
                    inner.push((before, connector.clone()));
                }
                Link::Os(spec) => {
                    if let Some(first) = os.replace(spec.clone()) {
                        let way_out =
                            "an OS layer looks into the memory of a connector; put -c CONNECTOR:TARGET between them";
                        return Err(Failure::Usage(format!(
                            "OS layers {first} and {spec} follow each other: {way_out}"
                        )));
                    }
                }
            }
        }
        let others = match os {
            Some(_) => Vec::new(),
            None => OTHER_OS.into_iter().map(spec).collect::<Outcome<_>>()?,
        };
        Ok(Rest { inner, os: os.map_or_else(default, Ok)?, others })
    }
}

impl Args for LinkArgs {
    fn augment_args(command: Command) -> Command {
        let connector = Arg::new(CONNECTOR)
            .short('c')
            .long(CONNECTOR)
            .value_name("CONNECTOR")
            .action(ArgAction::Append)
            .value_parser(value_parser!(ConnectorSpec))
            .help(
                "Open a machine inside that of TARGET, or of the -c before: NAME:TARGET:KEY=VALUE,…; may be repeated. Ahead of TARGET \
                 it takes its place",
            );
        let os = Arg::new(OS)
            .short('o')
            .long(OS)
            .value_name("OS")
            .action(ArgAction::Append)
            .value_parser(value_parser!(OsSpec))
            .help(
                "The OS layer for TARGET, or for the -c before [default: linux, else win32]: NAME:KEY=VALUE,…; may be repeated, once for each \
                 connector",
            );
        command.arg(connector).arg(os)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LinkArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let connectors = indexed(matches, CONNECTOR, Link::Connector);
        let mut links: Vec<(usize, Link)> = connectors.chain(indexed(matches, OS, Link::Os)).collect();
        links.sort_by_key(|(index, _)| *index);
        Ok(Self { links: links.into_iter().map(|(_, link)| link).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an option, each with its place on the command line.
fn indexed<'m, T: Clone + Send + Sync + 'static>(
    matches: &'m ArgMatches,
    id: &str,
    link: fn(T) -> Link,
) -> impl Iterator<Item = (usize, Link)> + use<'m, T> {
    let values = matches.get_many::<T>(id).into_iter().flatten().cloned().map(link);
    matches.indices_of(id).into_iter().flatten().zip(values)
}

/// Makes a `-c` that comes before every argument without a dash the TARGET of its command, so that a chain can be written with
/// nothing but `-c` and `-o`. Words that are not understood are left for the parser to refuse.
pub(crate) fn target_first(words: Vec<OsString>, mut cli: Command) -> Vec<OsString> {
    cli.build();
    match connector_at(&words, &cli) {
        None => words,
        Some(Found { at, len, before, value }) => {
            let mut target = OsString::from(AS_CONNECTOR);
            target.push(value);
            let place = before.into_iter().chain([target]);
            let (head, tail) = (words.get(..at).unwrap_or_default(), words.get(at + len..).unwrap_or_default());
            head.iter().cloned().chain(place).chain(tail.iter().cloned()).collect()
        }
    }
}

/// A `-c` in the place of TARGET.
struct Found {
    /// The word that it begins in.
    at: usize,
    /// How many words it takes.
    len: usize,
    /// Flags that stand in the same word.
    before: Option<OsString>,
    value: OsString,
}

fn connector_at(words: &[OsString], cli: &Command) -> Option<Found> {
    let command_at = words.iter().skip(1).position(|word| !is_option(word))? + 1;
    let command = cli.find_subcommand(words.get(command_at)?)?;
    let mut at = command_at + 1;
    loop {
        let word = words.get(at)?.to_str().filter(|word| is_option(word.as_ref()))?;
        let next = || words.get(at + 1).cloned();
        let (option, before, attached) = match word.strip_prefix("--") {
            Some(long) => {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let option = command.get_arguments().find(|option| option.get_long() == Some(name))?;
                (option, None, value)
            }
            None => last_of_cluster(word, command)?,
        };
        let takes_value = option.get_action().takes_values();
        let len = 1 + usize::from(takes_value && attached.is_none());
        if option.get_id() == CONNECTOR {
            let value = attached.map(OsString::from).or_else(next)?;
            // What looks like an option would not be taken for a target.
            return (!is_option(&value)).then_some(Found { at, len, before, value });
        }
        at += len;
    }
}

/// Of `-vqX` or `-vXVALUE`: the option X that takes a value, or the last one; the flags before it as a word; and the value.
fn last_of_cluster<'c, 'w>(
    word: &'w str,
    command: &'c Command,
) -> Option<(&'c Arg, Option<OsString>, Option<&'w str>)> {
    let mut last = None;
    for (index, short) in word.char_indices().skip(1) {
        let option = command.get_arguments().find(|option| option.get_short() == Some(short))?;
        let (before, rest) = (word.get(..index)?, word.get(index + short.len_utf8()..)?);
        let before = (before != "-").then(|| before.into());
        if option.get_action().takes_values() {
            let value = rest.strip_prefix('=').unwrap_or(rest);
            return Some((option, before, (!rest.is_empty()).then_some(value)));
        }
        last = Some((option, before, None));
    }
    last
}

/// True for a word that begins options.
fn is_option(word: &OsStr) -> bool {
    let bytes = word.as_encoded_bytes();
    bytes.len() > 1 && bytes.starts_with(b"-") && bytes != b"--"
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::args::Cli;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn first(line: &str) -> String {
        let all: Vec<String> =
            target_first(words(line), Cli::command()).into_iter().map(|word| word.into_string().unwrap()).collect();
        all.join(" ")
    }

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        links: LinkArgs,
    }

    fn rest(line: &str) -> Result<String, String> {
        let links = Only::try_parse_from(words(line)).map_err(|error| error.to_string())?.links;
        let Rest { inner, os, .. } = links.rest().map_err(|error| error.to_string())?;
        let inner: Vec<String> = inner.into_iter().map(|(os, connector)| format!("{os} > {connector} > ")).collect();
        Ok(format!("{}{os}", inner.concat()))
    }

    #[test]
    fn options_keep_their_order() {
        assert_eq!(rest("x").unwrap(), "linux");
        assert_eq!(rest("x -o other").unwrap(), "other");
        assert_eq!(rest("x -c a:1 -o b -c c:2").unwrap(), "linux > a:1 > b > c:2 > linux");
        assert_eq!(rest("x -o b -c a:1").unwrap(), "b > a:1 > linux");
        assert_eq!(rest("x --os=b:k=1 --connector a:1 -c c::d=2 -oe").unwrap(), "b:k=1 > a:1 > linux > c::d=2 > e");
    }

    #[test]
    fn os_layers_in_a_row_and_bad_specs_are_refused() {
        let error = rest("x -o a -o b -c c").unwrap_err();
        assert!(error.starts_with("OS layers a and b follow each other: ") && error.contains("put -c"), "{error}");
        let error = rest("x -c a:b:c:d").unwrap_err();
        assert!(error.contains("--connector <CONNECTOR>") && error.contains("character 6"), "{error}");
    }

    #[test]
    fn connector_ahead_of_everything_is_the_target() {
        let mark = AS_CONNECTOR;
        for line in
            ["memflow ps -c a:b", "memflow ps --connector a:b", "memflow ps --connector=a:b", "memflow ps -ca:b"]
        {
            assert_eq!(first(line), format!("memflow ps {mark}a:b"), "{line}");
        }
        assert_eq!(
            first("memflow -v maps --json -o linux -c a:b -c c:d 12"),
            format!("memflow -v maps --json -o linux {mark}a:b -c c:d 12")
        );
        assert_eq!(first("memflow ps -vtc a -l"), format!("memflow ps -vt {mark}a -l"));
        assert_eq!(first("memflow ps -n init --plugin x.so -c a"), format!("memflow ps -n init --plugin x.so {mark}a"));
    }

    #[test]
    fn examples_of_the_documentation_are_chains_of_four_links() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/target-strings.md");
        let page = std::fs::read_to_string(path).unwrap();
        let block = page.split("```chain\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        for line in block.lines() {
            let words = target_first(words(line), Cli::command());
            let matches = Cli::command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            let links = LinkArgs::from_arg_matches(matches.subcommand_matches("ps").unwrap()).unwrap();
            assert_eq!(links.rest().unwrap().inner.len(), 1, "{line}");
        }
        assert!(block.lines().count() >= 3);
    }

    #[test]
    fn other_lines_are_left_as_they_are() {
        for line in [
            "memflow",
            "memflow ps",
            "memflow ps demo -c a:b",
            "memflow ps -n -c demo -c a:b",
            "memflow ps -- -c a:b",
            "memflow ps --nonsense -c a:b",
            "memflow ps -Xc a:b",
            "memflow ps -c",
            "memflow ps -c -v",
            "memflow plugins -c a:b",
            "memflow nonsense -c a:b",
            "memflow --json",
        ] {
            assert_eq!(first(line), line);
        }
    }
}
