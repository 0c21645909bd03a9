//! `memflow convert`: a file with memory, in another format.
//!
//! Owns: which format the name of the new file tells. Must not know: how formats are laid out.
//! Keeps: a name that may mean several formats is never guessed.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    failure::{Failure, Outcome},
    image::{Compress, Fill, Format, Wanted, everything},
    output::Io,
    target::{Target, TargetArgs},
};

/// Arguments of `memflow convert`.
#[derive(Args, Debug)]
#[command(after_help = "\
FILE is written with all that TARGET tells: memory, registers, VMCOREINFO and whatever else is known of the machine, as far as the format \
has a place for it (elf and kdump have one for all, windows for what Windows keeps in a header). TARGET is a file or demo; what runs is written by `memflow dump`.

Without --format, the end of FILE's name tells it: .raw and .img, .lime, .elf, .kdump, .dmp (windows); all but .kdump also with .zst \
behind it, for --compress zstd.

FILE appears only when it is whole and on the disk, readable by its owner alone; - is standard output. Where something cannot be read, or \
was left out of TARGET on purpose and the format cannot tell that, there is an error and no file; --fill-gaps says what is written instead.

JSON: {\"file\", \"format\", \"size\", \"filled\", \"left_out\", \"unknown\", \"live\", \"problems\"}; live if a raw TARGET may have changed meanwhile.")]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The file to write
    #[arg(value_name = "FILE")]
    output: PathBuf,
    /// Format of FILE
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Compress FILE; it opens as it is, and is read at random
    #[arg(long, value_enum, value_name = "HOW")]
    compress: Option<Compress>,
    /// What to write where memory cannot be read or was left out, or where a raw file would have a gap
    #[arg(long, value_enum, value_name = "WITH")]
    fill_gaps: Option<Fill>,
    /// Replace FILE if it exists
    #[arg(short, long)]
    force: bool,
}

/// Opens the file and writes the other one.
pub(crate) fn run(args: &ConvertArgs, io: &mut Io<'_>) -> Outcome {
    if io.json && args.output.as_os_str() == "-" {
        io.json = false;
        return Err(Failure::Usage("--json and - would both write to standard output".to_owned()));
    }
    let told = told_by(&args.output);
    let format = args.format.or(told.format).ok_or_else(|| {
        Failure::Usage(format!(
            "{}: the name does not tell the format (.raw, .img, .lime, .elf, .kdump and .dmp do); name it with --format",
            args.output.display()
        ))
    })?;
    if told.zstd && format == Format::Kdump && args.compress.is_none() {
        return Err(Failure::Usage(format!(
            "{}: a kdump is not compressed as a whole, but page by page; leave .zst away and take --compress zstd",
            args.output.display()
        )));
    }
    let compress = args.compress.or(told.zstd.then_some(Compress::Zstd));
    let mut target = Target::open(&args.target, io)?;
    if !target.is_file() {
        let way_out = "only files are converted; `memflow dump` writes the memory of other targets";
        return Err(Failure::Usage(format!("{}: {way_out}", target.name())));
    }
    target.settle(io)?;
    let wanted = Wanted { output: &args.output, force: args.force, no_pause: true, fill: args.fill_gaps };
    everything(wanted, format, compress, &target, io)
}

/// What a name tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    format: Option<Format>,
    zstd: bool,
}

/// What the end of the file's name tells; names in capitals are from systems that make no difference.
fn told_by(path: &Path) -> Told {
    let ends = |path: &Path, end: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
    let zstd = ends(path, "zst");
    let inner = if zstd { path.with_extension("") } else { path.to_owned() };
    let known = [
        ("raw", Format::Raw),
        ("img", Format::Raw),
        ("lime", Format::Lime),
        ("elf", Format::Elf),
        ("kdump", Format::Kdump),
        ("dmp", Format::Windows),
    ];
    Told { format: known.into_iter().find_map(|(end, format)| ends(&inner, end).then_some(format)), zstd }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_tells_the_format_or_nothing() {
        for (name, format, zstd) in [
            ("a.raw", Some(Format::Raw), false),
            ("a.img.zst", Some(Format::Raw), true),
            ("folder.elf/a.b.LIME", Some(Format::Lime), false),
            ("a.elf.ZST", Some(Format::Elf), true),
            ("a.kdump", Some(Format::Kdump), false),
            ("a.kdump.zst", Some(Format::Kdump), true),
            ("elf", None, false),
            (".elf", None, false),
            ("a.zst", None, true),
            ("a.dmp", Some(Format::Windows), false),
            ("MEMORY.DMP.zst", Some(Format::Windows), true),
            ("a.core", None, false),
            ("a.elf.gz", None, false),
            ("-", None, false),
        ] {
            assert_eq!(told_by(Path::new(name)), Told { format, zstd }, "{name}");
        }
    }
}
