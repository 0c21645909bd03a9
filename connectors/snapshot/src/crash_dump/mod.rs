//! Windows crash dumps: complete, bitmap, kernel and live ones, of 32-bit and 64-bit x86 and 64-bit Arm.
//!
//! ```text
//! 32-bit  64-bit
//! 0       0        header       what the machine was, where the kernel's lists are, runs of memory, kind of dump
//! 0x1000  0x2000   body         pages of the runs (complete), or a bitmap or ranges of those that follow
//! ```
//!
//! Owns: which kind of body a dump has, and what its header tells the OS layer. Must not know: files, what lies in the memory.

mod body;
mod header;
pub(crate) mod raw;

use memflow_core::{
    Error, Result,
    memory::{RunMap, VcpuRegisters},
};

use self::{
    body::Body,
    header::Header,
    raw::{BITMAP_FULL, FULL, PAGE},
};
use crate::{
    image::{ParseOptions, ParsedImage},
    input::{ReadAt, View},
};

/// Kinds of dumps that are only read: values of `DumpType`.
const SUMMARY: u32 = 2;
const HEADER_ONLY: u32 = 3;
const TRIAGE: u32 = 4;
const BITMAP_KERNEL: u32 = 6;
const AUTOMATIC: u32 = 7;
const KERNEL: u32 = 8;
const KERNEL_AND_USER: u32 = 9;
const COMPLETE: u32 = 10;

/// Reads the header of a crash dump and finds its pages.
///
/// # Errors
/// [`Error::Format`] for parts that contradict each other or leave the file, unless `options` allow partial images;
/// [`Error::Unsupported`] for dumps that hold no physical memory; [`Error::Io`] when the input cannot be read.
pub fn parse(input: &dyn ReadAt, options: ParseOptions) -> Result<ParsedImage> {
    let view = View::new(input, "Windows crash dump");
    let header = Header::read(&view)?;
    let mut image = ParsedImage::default();
    let kind = match header.kind {
        FULL => "a complete dump",
        SUMMARY | BITMAP_KERNEL | AUTOMATIC | KERNEL => "a kernel dump: memory of processes was left out",
        KERNEL_AND_USER => "a kernel dump with memory of processes",
        BITMAP_FULL | COMPLETE => "a complete dump of what was in use",
        other => return Err(without_memory(&view, &header, other)),
    };
    image.notes.push(kind.to_owned());
    let Body { runs, missing } = match header.kind {
        FULL => body::complete(&view, &header),
        SUMMARY | BITMAP_FULL | BITMAP_KERNEL | AUTOMATIC => body::bitmap(&view, &header, options),
        _ => body::ranges(&view, &header, options),
    }?;
    image.runs = RunMap::new(within(&view, runs, options, &mut image.notes)?)
        .map_err(|error| view.bad(header.body, "each page once", error.to_string()))?;
    if image.runs.is_empty() {
        return Err(view.bad(header.body, "pages of memory", "none"));
    }
    if missing > 0 {
        image.notes.push(format!("{missing:#x} pages that the header promises are not there"));
    }
    let listed = header.runs.iter().fold(0, |sum: u64, [_, count]| sum.saturating_add(*count));
    let left_out = listed.saturating_mul(PAGE).saturating_sub(image.runs.total_bytes());
    if left_out > 0 && header.kind != FULL {
        image.notes.push(format!("{left_out:#x} bytes of the memory that the header lists were left out"));
    }
    image.facts.machine = Some(header.machine);
    image.facts.directory_table = header.directory_table;
    image.facts.vcpus = header.registers.into_iter().map(VcpuRegisters::X86).collect();
    image.facts.windows = header.windows;
    Ok(image)
}

/// Refuses runs that leave the file; in a partial image they are cut.
fn within(
    view: &View<'_>,
    runs: Vec<memflow_core::memory::Run>,
    options: ParseOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<memflow_core::memory::Run>> {
    let mut kept = Vec::with_capacity(runs.len());
    let mut missing: u64 = 0;
    for mut run in runs {
        let room = view.size().saturating_sub(run.offset);
        if room < run.range.len() {
            if !options.partial {
                return Err(view.bad(
                    run.offset,
                    format!("the {:#x} bytes of {}", run.range.len(), run.range),
                    format!(
                        "the end of the file at {:#x}; it looks truncated, copy it again or open it as a partial image",
                        view.size()
                    ),
                ));
            }
            missing = missing.saturating_add(run.range.len().saturating_sub(room));
            let Some(range) = memflow_core::PhysRange::new(run.range.start(), room) else { continue };
            run.range = range;
        }
        kept.push(run);
    }
    if missing > 0 {
        notes.push(format!("the file ends at {:#x}: {missing:#x} bytes of memory are missing", view.size()));
    }
    Ok(kept)
}

/// The error for a dump in which there is no physical memory, with what there is.
fn without_memory(view: &View<'_>, header: &Header, kind: u32) -> Error {
    let build = header.windows.map_or(0, |windows| windows.build);
    let (what, holds) = match kind {
        TRIAGE => (
            "a triage dump (small memory dump)",
            "the header, the stack of one thread, lists of processes and drivers, and what drivers added",
        ),
        HEADER_ONLY => ("a dump of the header alone", "the header"),
        _ => {
            return Error::Unsupported {
                what: format!("{}: a Windows crash dump of type {kind:#x}", view.path().display()),
                why: format!("types 1, 2, 5 to 9 and 0xa are known; it is of Windows build {build}"),
            };
        }
    };
    let stop = header.windows.and_then(|windows| windows.bug_check);
    let stop = stop.map_or_else(String::new, |check| format!(", stop code {:#x}", check.code));
    Error::Unsupported {
        what: format!("{}: {what} of Windows build {build}{stop}", view.path().display()),
        why: format!(
            "it holds {holds}, and no physical memory; a debugger opens it. Set the machine to write kernel or complete dumps for the next time"
        ),
    }
}
