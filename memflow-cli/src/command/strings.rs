//! `memflow strings`: runs of printable characters in memory.
//!
//! Owns: the forms of a string, and that a long one is told whole although it is found in pieces. Must not know: how strings are found.

use clap::{Args, ValueEnum};
use memflow_core::scan::{Pattern, Scanner, TextEncoding};
use serde::Serialize;

use super::{
    search::{JSON_LIMIT, RangeArgs, Summary, search},
    space::{Space, SpaceArgs},
};
use crate::{
    failure::{Failure, Outcome},
    output::{Hex, Io},
    parse,
    target::{Target, TargetArgs},
};

/// Characters of a piece of a string; a longer one is found as several that follow each other.
const PIECE: usize = 4096;

/// Arguments of `memflow strings`.
#[derive(Args, Debug)]
#[command(after_help = "\
A string is a run of printable ASCII characters, blanks and tabs, in ASCII or in UTF-16. Each line is an address and a string, by \
address; tabs are written as \\t.

JSON: {\"strings\": [{address, encoding, text}], \"ended\", \"searched\", \"unreadable\", \"problems\"} as those of `memflow find`.")]
pub(crate) struct StringsArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Characters of the shortest string
    #[arg(short = 'm', long, value_name = "COUNT", value_parser = parse::number, default_value = "4")]
    min: u64,
    /// How characters lie in memory
    #[arg(long, value_enum, default_value_t = Encoding::All)]
    encoding: Encoding,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    range: RangeArgs,
}

/// Encodings of strings.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    /// One byte a character
    Ascii,
    /// Two bytes a character
    Utf16,
    /// Both
    All,
}

#[derive(Serialize)]
struct Document {
    strings: Vec<Record>,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Serialize)]
struct Record {
    address: Hex,
    encoding: &'static str,
    text: String,
}

/// The string that was told last, as long as it may go on.
struct Open {
    pattern: usize,
    /// The address behind it.
    end: u64,
    /// True when its last piece is as long as a piece gets.
    full: bool,
}

/// Opens the target and prints the strings in it.
pub(crate) fn run(args: &StringsArgs, io: &mut Io<'_>) -> Outcome {
    let encodings: &[TextEncoding] = match args.encoding {
        Encoding::Ascii => &[TextEncoding::Utf8],
        Encoding::Utf16 => &[TextEncoding::Utf16Le],
        Encoding::All => &[TextEncoding::Utf8, TextEncoding::Utf16Le],
    };
    let min = usize::try_from(args.min).unwrap_or(usize::MAX);
    let patterns: Result<Vec<Pattern>, _> =
        encodings.iter().map(|encoding| Pattern::strings(*encoding, min, PIECE)).collect();
    let scanner = patterns.and_then(Scanner::new).map_err(|error| Failure::Usage(error.to_string()))?;
    let mut target = Target::open(&args.target, io)?;
    let space = Space::open(&args.space, &mut target, io)?;
    let mut records: Vec<Record> = Vec::new();
    let mut open: Option<Open> = None;
    let mut each = |io: &mut Io<'_>, addr: u64, pattern: usize, bytes: &[u8]| -> Outcome<()> {
        let encoding = encodings.get(pattern).copied().unwrap_or(TextEncoding::Utf8);
        let width = if encoding == TextEncoding::Utf8 { 1 } else { 2 };
        let text: String = bytes.iter().step_by(width).copied().map(char::from).collect();
        let goes_on = open.as_ref().is_some_and(|open| open.full && open.pattern == pattern && open.end == addr);
        let line_is_open = open.is_some();
        open = Some(Open {
            pattern,
            end: addr.wrapping_add(bytes.len() as u64),
            full: bytes.len() >= PIECE.saturating_mul(width),
        });
        if io.json {
            match records.last_mut() {
                Some(last) if goes_on => last.text.push_str(&text),
                _ => records.push(Record {
                    address: Hex(addr),
                    encoding: if width == 1 { "ascii" } else { "utf16" },
                    text,
                }),
            }
            return Ok(());
        }
        let text = text.replace('\t', "\\t");
        if goes_on {
            return io.print(text);
        }
        let before = if line_is_open { "\n" } else { "" };
        io.print(format_args!("{before}{addr:016x}  {text}"))
    };
    let mut summary = search(scanner.scan(), &space, &target, &args.range, io, &mut each)?;
    if summary.is_cut(&args.range) {
        summary.problem(format!("there may be more than {JSON_LIMIT} strings, which is the most in a JSON document"));
    }
    if io.json {
        summary.warn(io);
        let outcome = summary.finish();
        io.document(&Document { strings: records, summary })?;
        return outcome;
    }
    if open.is_some() {
        io.line("")?;
    }
    io.flush()?;
    summary.warn(io);
    summary.finish()
}
