//! `memflow find`: text, bytes, numbers and regular expressions in memory.
//!
//! Owns: the options that say what is looked for, and the forms of a match. Must not know: how anything is found.

use std::{fs, path::PathBuf};

use clap::Args;
use memflow_core::{
    MemoryView, MemoryViewExt, VirtAddr,
    scan::{Case, Pattern, RegexOptions, Scanner, TextEncoding},
};
use serde::Serialize;

use super::{
    search::{JSON_LIMIT, RangeArgs, Summary, search},
    space::{Space, SpaceArgs},
};
use crate::{
    failure::{Failure, Outcome, Status},
    output::{Hex, Hexdump, Io, Repeats, escape, escape_bytes, hex_bytes},
    parse,
    target::{Target, TargetArgs},
};

/// Bytes of a match that a line shows.
const SHOWN: usize = 64;
/// Most bytes before and after a match.
const MAX_CONTEXT: u64 = 1 << 20;

/// Arguments of `memflow find`.
#[derive(Args, Debug)]
#[command(after_help = "\
BYTES are hexadecimal digits with ? for any digit: \"48 8b ?? 4? 00\". TYPE is u8 to u64, i8 to i64, f32, f64, ptr32 or ptr64, \
little-endian unless be follows (u32be). A regular expression is one over bytes: \\xNN is a byte, . any byte but a line feed \
((?s): any), ^ and $ are the ends of a line; its matches do not overlap and have at most --max-len bytes. FILE has a \
pattern on each line: text:…, itext:…, utf16:…, iutf16:…, hex:…, regex:…, iregex:…, u32:…; i is without case.

In an address space, what is mapped is searched, in that of a process only its own half; what is not in memory, as pages that were \
never touched or are swapped out, is not. \
What is mapped and cannot be read is told, and the exit code is 1, as it is when nothing is found. After Ctrl-C, what was found \
until then is told.

JSON: {\"matches\": [{address, pattern, length, bytes}], \"ended\": complete, limit or interrupted, \"searched\": bytes, \"unreadable\": \
[{start, length, reason}], \"problems\": […]}; at most 1048576 matches.")]
pub(crate) struct FindArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    range: RangeArgs,
    /// Only at addresses that are a multiple of this
    #[arg(long, value_name = "BYTES", value_parser = parse::size, default_value = "1", hide_default_value = true)]
    align: u64,
    /// Show this many bytes before and after each match
    #[arg(short = 'C', long, value_name = "BYTES", value_parser = parse::size, conflicts_with = "json")]
    context: Option<u64>,
}

/// What is looked for.
#[derive(Args, Debug)]
struct WhatArgs {
    /// Text, in UTF-8
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
    /// Text in UTF-16, as Windows has it
    #[arg(long, value_name = "TEXT")]
    utf16: Vec<String>,
    /// Bytes in hexadecimal, ? for any digit
    #[arg(short = 'x', long, value_name = "BYTES")]
    hex: Vec<String>,
    /// A number as it lies in memory
    #[arg(long, value_name = "TYPE:NUMBER")]
    value: Vec<String>,
    /// A regular expression over bytes
    #[arg(short = 'e', long, value_name = "REGEX")]
    regex: Vec<String>,
    /// Patterns from a file, one a line
    #[arg(short = 'f', long, value_name = "FILE")]
    patterns: Option<PathBuf>,
    /// Upper and lower case are the same, in text and regular expressions
    #[arg(short, long)]
    ignore_case: bool,
    /// Bytes of the longest match of a regular expression
    #[arg(long, value_name = "BYTES", value_parser = parse::size, default_value = "4096")]
    max_len: u64,
}

#[derive(Serialize)]
struct Document {
    matches: Vec<Record>,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Serialize)]
struct Record {
    address: Hex,
    pattern: String,
    length: usize,
    bytes: String,
}

/// How the bytes of a match are shown.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Wide,
    Hex,
}

/// Opens the target and searches.
pub(crate) fn run(args: &FindArgs, io: &mut Io<'_>) -> Outcome {
    let scanner = scanner(&args.what)?;
    if args.align == 0 {
        return Err(Failure::Usage("--align 0: an alignment is 1 or more bytes".to_owned()));
    }
    let context = args.context.map(|context| context.min(MAX_CONTEXT));
    let mut target = Target::open(&args.target, io)?;
    let space = Space::open(&args.space, &mut target, io)?;
    io.note(format_args!("searched by: {}", scanner.engines()));
    let forms: Vec<Form> = scanner.patterns().iter().map(form).collect();
    let named = scanner.patterns().len() > 1;
    let mut records = Vec::new();
    let mut found = false;
    let view = space.view();
    let mut each = |io: &mut Io<'_>, addr: u64, pattern: usize, bytes: &[u8]| -> Outcome<()> {
        found = true;
        let name = || scanner.patterns().get(pattern).map(ToString::to_string).unwrap_or_default();
        if io.json {
            records.push(Record { address: Hex(addr), pattern: name(), length: bytes.len(), bytes: hex_bytes(bytes) });
            return Ok(());
        }
        let shown = show(forms.get(pattern).copied().unwrap_or(Form::Hex), bytes);
        if named {
            io.line(format_args!("{addr:016x}  {shown}  {}", escape(&name())))?;
        } else {
            io.line(format_args!("{addr:016x}  {shown}"))?;
        }
        context.map_or(Ok(()), |context| around(view, addr, bytes.len(), context, io))
    };
    let scan = scanner.scan().align(args.align);
    let mut summary = search(scan, &space, &target, &args.range, io, &mut each)?;
    if summary.is_cut(&args.range) {
        summary.problem(format!("there may be more than {JSON_LIMIT} matches, which is the most in a JSON document"));
    }
    if io.json {
        summary.warn(io);
        let outcome = end(&summary, found, io);
        io.document(&Document { matches: records, summary })?;
        outcome
    } else {
        io.flush()?;
        summary.warn(io);
        end(&summary, found, io)
    }
}

/// Nothing found is not what was asked for.
fn end(summary: &Summary, found: bool, io: &mut Io<'_>) -> Outcome {
    let status = summary.finish()?;
    if found {
        return Ok(status);
    }
    io.warn("nothing found");
    Ok(Status::Incomplete)
}

/// The patterns of the command line.
fn scanner(what: &WhatArgs) -> Outcome<Scanner> {
    let case = if what.ignore_case { Case::Insensitive } else { Case::Sensitive };
    let usage = |error: memflow_core::Error| Failure::Usage(error.to_string());
    let max_len = usize::try_from(what.max_len).unwrap_or(usize::MAX);
    let mut patterns = Vec::new();
    for text in &what.text {
        patterns.push(Pattern::text(text, TextEncoding::Utf8, case).map_err(usage)?);
    }
    for text in &what.utf16 {
        patterns.push(Pattern::text(text, TextEncoding::Utf16Le, case).map_err(usage)?);
    }
    for text in &what.hex {
        patterns.push(Pattern::hex(text).map_err(usage)?);
    }
    for text in &what.value {
        patterns.push(Pattern::value(text).map_err(usage)?);
    }
    for source in &what.regex {
        patterns.push(Pattern::regex(source, RegexOptions { case, max_len }).map_err(usage)?);
    }
    if let Some(path) = &what.patterns {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
        for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.is_empty()) {
            let pattern = text.parse().map_err(|error| Failure::Usage(format!("{name}, line {line}: {error}")))?;
            patterns.push(pattern);
        }
    }
    if patterns.is_empty() {
        let ways = "a TEXT, --hex, --utf16, --value, --regex or --patterns is needed";
        return Err(Failure::Usage(format!("nothing to look for: {ways}")));
    }
    Scanner::new(patterns).map_err(usage)
}

/// How matches of a pattern are shown: as what was asked for.
fn form(pattern: &Pattern) -> Form {
    match pattern.to_string().split(':').next() {
        Some("text" | "itext" | "regex" | "iregex") => Form::Text,
        Some("utf16" | "iutf16") => Form::Wide,
        _ => Form::Hex,
    }
}

fn show(form: Form, bytes: &[u8]) -> String {
    let (bytes, more) = match bytes.get(..SHOWN) {
        Some(first) if bytes.len() > SHOWN => (first, "…"),
        _ => (bytes, ""),
    };
    let text = match form {
        Form::Text => escape_bytes(bytes),
        Form::Wide => {
            let (units, _) = bytes.as_chunks::<2>();
            let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).collect();
            escape(&String::from_utf16_lossy(&units)).into_owned()
        }
        Form::Hex => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    };
    format!("{text}{more}")
}

/// Shows the bytes before, in and after a match, and an empty line.
fn around(view: &dyn MemoryView, addr: u64, len: usize, context: u64, io: &mut Io<'_>) -> Outcome<()> {
    let start = addr.saturating_sub(context);
    let end = addr.saturating_add(len as u64).saturating_add(context);
    let length = usize::try_from(end - start).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    let gaps = view.read_partial(VirtAddr::new(start), &mut bytes)?.gaps;
    let mut cells: Vec<Option<u8>> = bytes.into_iter().map(Some).collect();
    for gap in gaps {
        let from = usize::try_from(gap.range.start().as_u64().saturating_sub(start)).unwrap_or(length);
        let missing = usize::try_from(gap.range.len()).unwrap_or(length);
        cells.iter_mut().skip(from).take(missing).for_each(|cell| *cell = None);
    }
    let broken = |error| Failure::output("standard output", error);
    let mut dump = Hexdump::new(start, length as u64, Repeats::Shown);
    dump.extend(io.out(), cells).map_err(broken)?;
    dump.finish(io.out()).map_err(broken)?;
    io.line("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_shown_as_what_was_asked_for() {
        let shown = |text: &str, bytes: &[u8]| show(form(&text.parse().unwrap()), bytes);
        assert_eq!(shown("itext:abc", b"aBc"), "aBc");
        assert_eq!(shown("regex:a.", b"a\x1b"), "a\\u{1b}");
        assert_eq!(shown("utf16:ü", b"\xfc\0"), "ü");
        assert_eq!(shown("hex:0?", b"\x01"), "01");
        assert_eq!(shown("u16:1", b"\x01\0"), "01 00");
        assert_eq!(shown("regex:a+", &[b'a'; 100]), format!("{}…", "a".repeat(64)));
    }
}
