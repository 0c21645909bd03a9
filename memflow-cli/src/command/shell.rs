//! `memflow completions` and `memflow man`: what a shell and a manual reader need.
//!
//! Owns: nothing; both are made from the command line's own definition, so they cannot differ from it.
//! Must not know: targets.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    args::Cli,
    failure::{Failure, Outcome, Status},
    output::Io,
};

/// Arguments of `memflow completions`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: memflow completions bash > ~/.local/share/bash-completion/completions/memflow")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `memflow man`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: memflow man read | man -l -")]
pub(crate) struct ManArgs {
    /// The command to describe; without it, memflow itself
    command: Option<String>,
}

/// Prints the completion script of a shell.
pub(crate) fn completions(args: &CompletionsArgs, io: &mut Io<'_>) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "memflow", &mut script);
    io.bytes(&script)?;
    Ok(Status::Complete)
}

/// Prints a manual page.
pub(crate) fn man(args: &ManArgs, io: &mut Io<'_>) -> Outcome {
    let mut cli = Cli::command();
    cli.build();
    let command = match &args.command {
        None => cli,
        Some(name) => match cli.find_subcommand(name) {
            Some(command) => command.clone().display_name(format!("memflow-{name}")),
            None => return Err(Failure::Usage(format!("there is no command `{name}`; `memflow --help` lists them"))),
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error: io::Error| Failure::output("manual page", error))?;
    io.bytes(&page)?;
    Ok(Status::Complete)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::output::Verbosity;

    fn output(work: impl FnOnce(&mut Io<'_>) -> Outcome) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = work(&mut Io::new(&mut out, &mut err, false, Verbosity::Normal)).unwrap();
        assert_eq!(status, Status::Complete);
        assert!(err.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_shell_has_a_completion_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let script = output(|io| completions(&CompletionsArgs { shell: *shell }, io));
            assert!(script.contains("translate"), "{shell}");
        }
    }

    #[test]
    fn manual_pages_exist_for_the_program_and_its_commands() {
        assert!(output(|io| man(&ManArgs { command: None }, io)).contains("memflow"));
        assert!(output(|io| man(&ManArgs { command: Some("read".into()) }, io)).contains("memflow\\-read"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io = Io::new(&mut out, &mut err, false, Verbosity::Normal);
        let failure = man(&ManArgs { command: Some("nonsense".into()) }, &mut io).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
    }
}
