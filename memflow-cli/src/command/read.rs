//! `memflow read`: bytes, as a hexdump, raw, or as a string.
//!
//! Owns: the forms of bytes, and what becomes of those that cannot be read. Must not know: how addresses become bytes.
//! Keeps: `--raw` writes everything or nothing, unless the caller names a fill byte; memory used here does not grow with the length.

use std::io::{Read, Seek, SeekFrom, Write};

use clap::Args;
use memflow_core::{Error, MemoryView, MemoryViewExt, Reason, VirtAddr, VirtRange, address::MIB, view::Gap};
use serde::Serialize;

use super::{
    address::resolve,
    space::{Space, SpaceArgs},
};
use crate::{
    failure::{Failure, Outcome, Status},
    interrupt,
    output::{Hex, Hexdump, Io, Repeats, escape_bytes, hex_bytes, plural, size},
    parse::{self, AddressExpr},
    target::{Target, TargetArgs},
};

/// Length of a hexdump when none is given.
const DEFAULT_LEN: u64 = 256;
/// Longest string when no length is given.
const DEFAULT_STRING: u64 = 4096;
/// Bytes read at once.
const STEP: u64 = MIB;
/// Most bytes in one JSON document.
const JSON_LIMIT: u64 = 64 * MIB;
/// `--raw` holds back this many bytes in memory, and more in a temporary file, until it is known that all can be read.
const HELD_IN_MEMORY: usize = 64 << 20;
/// How many gaps the messages name.
const NAMED_GAPS: usize = 8;

/// Arguments of `memflow read`.
#[derive(Args, Debug)]
#[command(after_help = "\
ADDR is a number (decimal, or hexadecimal with 0x) or a kernel symbol with an offset: linux_banner, init_task+0x10. \
LEN is a number with an optional unit: B, KiB, MiB, GiB.
Bytes that cannot be read are ?? in the dump; why is said on standard error, and the exit code is 1.

JSON: {\"address\", \"length\", \"bytes\": hexadecimal digits (?? where unreadable), \"gaps\": [{start, length, reason}], \
\"problems\": […]}; with --string: {\"address\", \"text\", \"bytes\", \"problems\"}.")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Where to start
    #[arg(value_name = "ADDR")]
    address: AddressExpr,
    /// How many bytes [default: 256; for --string at most 4096]
    #[arg(value_name = "LEN", value_parser = parse::size)]
    len: Option<u64>,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    form: Form,
}

/// How bytes are shown.
#[derive(Args, Clone, Default, Debug)]
struct Form {
    /// Show repeated lines instead of one *
    #[arg(long)]
    no_squeeze: bool,
    /// Write the bytes themselves; nothing is written unless all of them can be read
    #[arg(long, conflicts_with_all = ["json", "no_squeeze"])]
    raw: bool,
    /// With --raw: write this byte for each that cannot be read
    #[arg(long, value_name = "BYTE", value_parser = parse::byte, requires = "raw")]
    fill: Option<u8>,
    /// Show the text up to the first zero byte
    #[arg(short, long, conflicts_with_all = ["raw", "no_squeeze"])]
    string: bool,
}

#[derive(Serialize)]
struct Document {
    address: Hex,
    length: u64,
    bytes: String,
    gaps: Vec<GapRecord>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct GapRecord {
    start: Hex,
    length: u64,
    reason: String,
}

#[derive(Serialize)]
struct StringDocument {
    address: Hex,
    text: String,
    bytes: String,
    problems: Vec<String>,
}

/// Opens the target and reads.
pub(crate) fn run(args: &ReadArgs, io: &mut Io<'_>) -> Outcome {
    let mut target = Target::open(&args.target, io)?;
    let space = Space::open(&args.space, &mut target, io)?;
    let address = match (space.os(), &args.address) {
        (Some(os), expr) => resolve(os, expr)?,
        (None, AddressExpr::Number(value)) => VirtAddr::new(*value),
        (None, AddressExpr::Symbol { .. }) => {
            return Err(Failure::Usage(format!(
                "`{}` is a symbol of the kernel; with --phys, --vcpu or --root an address is a number",
                args.address
            )));
        }
    };
    show(space.view(), address, args.len, &args.form, io)
}

fn show(view: &dyn MemoryView, address: VirtAddr, len: Option<u64>, form: &Form, io: &mut Io<'_>) -> Outcome {
    if form.string {
        return string(view, address, len.unwrap_or(DEFAULT_STRING), io);
    }
    let len = len.unwrap_or(DEFAULT_LEN);
    let range = VirtRange::new(address, len).ok_or(Error::Range { address: address.into(), len })?;
    match (form.raw, form.fill) {
        (true, None) => raw(view, range, io),
        (true, Some(fill)) => filled(view, range, fill, io),
        (false, _) if io.json => document(view, range, io),
        (false, _) => hexdump(view, range, if form.no_squeeze { Repeats::Shown } else { Repeats::Squeezed }, io),
    }
}

/// Reads `range` step by step: `step` gets the address, the bytes, and what is missing among them.
fn each_step(
    view: &dyn MemoryView,
    range: VirtRange,
    mut step: impl FnMut(VirtAddr, &mut [u8], &[Gap]) -> Outcome<()>,
) -> Outcome<()> {
    let mut buf = Vec::new();
    let mut done = 0;
    while done < range.len() {
        if interrupt::requested() {
            return Err(Failure::Interrupted);
        }
        let len = (range.len() - done).min(STEP);
        buf.clear();
        // At most `STEP`, which every machine's address space holds.
        buf.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        let at = range.start().wrapping_add(done);
        let gaps = view.read_partial(at, &mut buf)?.gaps;
        step(at, &mut buf, &gaps)?;
        done += len;
    }
    Ok(())
}

/// The part of `buf`, which starts at `at`, that a gap covers.
fn covered<'a, T>(at: VirtAddr, buf: &'a mut [T], gap: &Gap) -> &'a mut [T] {
    let start = gap.range.start().offset_from(at).and_then(|start| usize::try_from(start).ok()).unwrap_or(0);
    let len = usize::try_from(gap.range.len()).unwrap_or(usize::MAX);
    let end = start.saturating_add(len).min(buf.len());
    buf.get_mut(start..end).unwrap_or_default()
}

/// What could not be read in all steps.
#[derive(Default)]
struct Missing {
    first: Vec<Gap>,
    bytes: u64,
}

impl Missing {
    fn add(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            self.bytes = self.bytes.saturating_add(gap.range.len());
            let named = self.first.len();
            match self.first.last_mut() {
                // A gap that was cut where a step ended.
                Some(last) if last.range.end() == Some(gap.range.start()) && same_cause(last, gap) => {
                    let len = last.range.len().saturating_add(gap.range.len());
                    last.range = VirtRange::new(last.range.start(), len).unwrap_or(last.range);
                }
                _ if named < NAMED_GAPS => self.first.push(*gap),
                _ => {}
            }
        }
    }

    /// Names the gaps.
    fn report(&self, io: &mut Io<'_>) -> Status {
        let mut named: u64 = 0;
        for Gap { range, reason } in &self.first {
            named = named.saturating_add(range.len());
            let bytes = plural(range.len(), "byte");
            io.warn(format_args!("{bytes} at {} cannot be read: {reason}", range.start()));
        }
        if self.bytes > named {
            io.warn(format_args!("{} more cannot be read either", plural(self.bytes - named, "byte")));
        }
        if self.bytes == 0 { Status::Complete } else { Status::Incomplete }
    }
}

/// True when two gaps that touch are one for a reader of messages.
fn same_cause(a: &Gap, b: &Gap) -> bool {
    match (a.reason, b.reason) {
        (Reason::NotMapped(a), Reason::NotMapped(b)) => a.cause == b.cause && a.level == b.level,
        (a, b) => std::mem::discriminant(&a) == std::mem::discriminant(&b),
    }
}

fn hexdump(view: &dyn MemoryView, range: VirtRange, repeats: Repeats, io: &mut Io<'_>) -> Outcome {
    let mut dump = Hexdump::new(range.start().as_u64(), range.len(), repeats);
    let mut missing = Missing::default();
    each_step(view, range, |at, bytes, gaps| {
        let mut cells: Vec<Option<u8>> = bytes.iter().copied().map(Some).collect();
        for gap in gaps {
            covered(at, &mut cells, gap).fill(None);
        }
        missing.add(gaps);
        dump.extend(io.out(), cells).map_err(|error| Failure::output("standard output", error))
    })?;
    dump.finish(io.out()).map_err(|error| Failure::output("standard output", error))?;
    io.flush()?;
    Ok(missing.report(io))
}

fn raw(view: &dyn MemoryView, range: VirtRange, io: &mut Io<'_>) -> Outcome {
    let held_back = |error| Failure::output("temporary file for bytes that are held back", error);
    let mut held = tempfile::spooled_tempfile(HELD_IN_MEMORY);
    each_step(view, range, |_, bytes, gaps| match gaps.first() {
        None => held.write_all(bytes).map_err(held_back),
        Some(Gap { range: gap, reason }) => Err(Failure::Unreadable(format!(
            "{} at {} cannot be read: {reason}; nothing was written; --fill BYTE writes a byte for each that is missing",
            plural(gap.len(), "byte"),
            gap.start()
        ))),
    })?;
    held.seek(SeekFrom::Start(0)).map_err(held_back)?;
    let mut buf = vec![0; 1 << 16];
    loop {
        match held.read(&mut buf).map_err(held_back)? {
            0 => return Ok(Status::Complete),
            len => io.bytes(buf.get(..len).unwrap_or_default())?,
        }
    }
}

fn filled(view: &dyn MemoryView, range: VirtRange, fill: u8, io: &mut Io<'_>) -> Outcome {
    let mut missing = Missing::default();
    each_step(view, range, |at, bytes, gaps| {
        for gap in gaps {
            covered(at, bytes, gap).fill(fill);
        }
        missing.add(gaps);
        io.bytes(bytes)
    })?;
    io.flush()?;
    // The caller asked for it by name, so the output is what was asked for.
    let _filled = missing.report(io);
    Ok(Status::Complete)
}

fn document(view: &dyn MemoryView, range: VirtRange, io: &mut Io<'_>) -> Outcome {
    if range.len() > JSON_LIMIT {
        return Err(Failure::Usage(format!(
            "{} are too many for one JSON document, the limit is {}; use --raw or `memflow dump`",
            size(range.len()),
            size(JSON_LIMIT)
        )));
    }
    let mut digits = String::new();
    let mut missing = Missing::default();
    let mut gaps = Vec::new();
    each_step(view, range, |at, bytes, found| {
        let mut cells: Vec<Option<u8>> = bytes.iter().copied().map(Some).collect();
        for gap in found {
            covered(at, &mut cells, gap).fill(None);
        }
        for cell in cells {
            match cell {
                Some(byte) => digits.push_str(&hex_bytes(&[byte])),
                None => digits.push_str("??"),
            }
        }
        missing.add(found);
        gaps.extend(found.iter().map(|gap| GapRecord {
            start: gap.range.start().into(),
            length: gap.range.len(),
            reason: gap.reason.to_string(),
        }));
        Ok(())
    })?;
    let problems =
        gaps.iter().map(|gap| format!("{} at {:#x}: {}", plural(gap.length, "byte"), gap.start.0, gap.reason));
    let problems = problems.collect();
    io.document(&Document { address: range.start().into(), length: range.len(), bytes: digits, gaps, problems })?;
    Ok(missing.report(io))
}

fn string(view: &dyn MemoryView, address: VirtAddr, max: u64, io: &mut Io<'_>) -> Outcome {
    let bytes = view.read_c_string(address, usize::try_from(max).unwrap_or(usize::MAX))?;
    let cut = bytes.len() as u64 == max;
    let problem = cut.then(|| format!("no end of the string within {}", plural(max, "byte")));
    if let Some(problem) = &problem {
        io.warn(problem);
    }
    if io.json {
        io.document(&StringDocument {
            address: address.into(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes: hex_bytes(&bytes),
            problems: problem.into_iter().collect(),
        })?;
    } else {
        io.line(escape_bytes(&bytes))?;
    }
    Ok(if cut { Status::Incomplete } else { Status::Complete })
}

#[cfg(test)]
mod tests {
    use memflow_core::os::Os;

    use super::{
        super::testing::{FakeOs, shown},
        *,
    };

    fn read(start: u64, len: u64, form: &Form, json: bool) -> super::super::testing::Left {
        let os = FakeOs::new();
        shown(json, |io| show(os.kernel_view(), VirtAddr::new(start), Some(len), form, io))
    }

    #[test]
    fn gap_between_bytes_is_neither_zero_nor_silent() {
        let text = read(0x1ff8, 0x1010, &Form::default(), false);
        assert_eq!(text.status, Status::Incomplete);
        let lines: Vec<&str> = text.out.lines().collect();
        assert_eq!(lines[0], "00001ff8  61 61 61 61 61 61 61 61  ?? ?? ?? ?? ?? ?? ?? ??  |aaaaaaaa        |");
        assert_eq!(lines[2], "*");
        assert_eq!(lines[3], "00002ff8  ?? ?? ?? ?? ?? ?? ?? ??  62 62 62 62 62 62 62 62  |        bbbbbbbb|");
        assert_eq!(
            text.err,
            "warning: 4096 bytes at 0x2000 cannot be read: physical address 0x2000 is not in the image\n"
        );
    }

    #[test]
    fn filled_bytes_stand_where_the_gap_is() {
        let form = Form { raw: true, fill: Some(b'.'), ..Form::default() };
        let text = read(0x1ffe, 0x1004, &form, false);
        assert_eq!((text.status, text.out), (Status::Complete, format!("aa{}bb", ".".repeat(0x1000))));
    }

    #[test]
    fn raw_is_all_or_nothing() {
        let os = FakeOs::new();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io = Io::new(&mut out, &mut err, false, crate::output::Verbosity::Normal);
        let form = Form { raw: true, ..Form::default() };
        let failure = show(os.kernel_view(), VirtAddr::new(0x1ffe), Some(4), &form, &mut io).unwrap_err();
        assert_eq!((failure.exit_code(), failure.kind()), (1, "unreadable"));
        assert!(out.is_empty());
        assert_eq!(read(0x1ffe, 2, &form, false).out, "aa");
    }

    #[test]
    fn document_has_digits_for_bytes_and_marks_for_gaps() {
        let text = read(0x1fff, 2, &Form::default(), true);
        let document: serde_json::Value = serde_json::from_str(&text.out).unwrap();
        assert_eq!(
            (text.status, &document["bytes"], &document["length"]),
            (Status::Incomplete, &"61??".into(), &2.into())
        );
        assert_eq!(document["gaps"][0]["start"], "0x2000");
    }

    #[test]
    fn string_without_end_is_incomplete() {
        let form = Form { string: true, ..Form::default() };
        let text = read(0x1000, 3, &form, false);
        assert_eq!((text.status, text.out.as_str()), (Status::Incomplete, "aaa\n"));
        assert_eq!(text.err, "warning: no end of the string within 3 bytes\n");
    }

    #[test]
    fn nothing_to_read_is_complete() {
        let text = read(0x5000, 0, &Form::default(), false);
        assert_eq!((text.status, text.out.as_str(), text.err.as_str()), (Status::Complete, "00005000\n", ""));
    }
}
