//! The command line.
//!
//! Owns: the commands, their common options and help. Must not know: targets; this stage only validates, each command resolves its own
//! arguments in its file.

use clap::{Args, Parser, Subcommand};

use crate::{command, output::Verbosity, target::TargetArgs};

/// What the help says below the options.
const AFTER_HELP: &str = "\
TARGET is `demo` (a small Linux machine inside this program) or a file: a raw image, a LiME or ELF core dump, each also \
compressed with gzip, zstd, xz or lz4, or the file behind a running VM's memory. A file that is called demo is written ./demo. \
With CONNECTOR:TARGET:KEY=VALUE,… another connector opens it; `memflow plugins` lists them. A name from `memflow targets` is enough if no \
file is called so and one connector alone has it. A machine inside it is reached with \
-c: `memflow ps host.elf -c process:qemu-system-x86`.

Exit codes: 0 everything that was asked for; 1 something asked for is missing, unreadable or incomplete; 2 wrong usage; \
3 the target cannot be opened, or no operating system was recognised; 4 the output cannot be written; 130 Ctrl-C.

Environment: MEMFLOW_LOG sets the log on standard error (error, warn, info, debug, trace, or module=level,…); \
MEMFLOW_PLUGIN_PATH lists folders with plugins; MEMFLOW_CACHE_DIR is the folder in which what is learnt of a kernel's build is kept for \
the next run (else memflow in the user's folder of caches; empty for none); NO_COLOR turns colours off.";

/// Look into the memory of machines and their snapshots.
#[derive(Parser, Debug)]
#[command(name = "memflow", version, after_help = AFTER_HELP, max_term_width = 120, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of every command.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct CommonArgs {
    /// Print JSON: addresses are "0x…" texts, numbers are numbers; what kept the answer from being complete is in `problems`
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say how things were found
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Say nothing but errors on standard error: no warnings, no progress
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl CommonArgs {
    /// How much is said on standard error.
    pub(crate) fn verbosity(self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the processes
    Ps(command::PsArgs),
    /// Say what the target is: format, memory, kernel
    Info(command::InfoArgs),
    /// Show the memory map of a process
    Maps(command::MapsArgs),
    /// List the modules of the kernel, or of a process
    Modules(command::ModulesArgs),
    /// Look up symbols of the kernel
    Symbols(command::SymbolsArgs),
    /// Print the log of the kernel
    Dmesg(command::DmesgArgs),
    /// Read memory of a process, of the kernel or of the machine
    Read(command::ReadArgs),
    /// Look for text, bytes, numbers or regular expressions in memory
    Find(command::FindArgs),
    /// Print the strings in memory
    Strings(command::StringsArgs),
    /// Write memory to a file
    Dump(command::DumpArgs),
    /// Say which memory differs between two targets, and whose it is
    Diff(command::DiffArgs),
    /// Write a file with memory in another format
    Convert(command::ConvertArgs),
    /// Follow the page tables from a virtual address to a physical one, or back
    Translate(command::TranslateArgs),
    /// List what the connectors could open now
    Targets(command::TargetsArgs),
    /// Stop the target's vCPUs
    Pause(command::ControlArgs),
    /// Let the target's vCPUs run
    Resume(command::ControlArgs),
    /// List plugins, show one, or say why one is not taken
    Plugins(command::PluginsArgs),
    /// List what earlier runs learnt of kernels, or forget it
    Cache(command::CacheArgs),
    /// Print a completion script for a shell
    Completions(command::CompletionsArgs),
    /// Print the manual page
    Man(command::ManArgs),
}

/// The target, and for some commands one of its processes.
#[derive(Args, Debug)]
pub(crate) struct ProcessArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Process id
    pub(crate) pid: u32,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
