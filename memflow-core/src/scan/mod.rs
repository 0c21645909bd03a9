//! Looking for things in memory: bytes, text, hexadecimal patterns with wildcards, values, regular expressions, strings.
//!
//! | what | where |
//! |---|---|
//! | what is looked for | [`Pattern`] |
//! | many patterns, made ready once and used often | [`Scanner`] |
//! | where it is looked for: physical memory, an address space, any view | [`Scan::physical`], [`Scan::space`], [`Scan::view`] |
//! | what was found, and what could not be read | [`Hit`], [`Scanned`] |
//!
//! ```
//! # use std::ops::ControlFlow;
//! # use memflow_core::{memory::*, scan::*, *};
//! let mut bytes = vec![0; 0x3000];
//! bytes[0x1ffe..0x2003].copy_from_slice(b"\x48\x8b\x05\x4c\x00");
//! let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x3000), facts: TargetFacts::default() };
//! let memory = BufferMemory::new(config, bytes)?;
//!
//! let scanner = Scanner::new([Pattern::hex("48 8b ?? 4? 00")?, Pattern::value("u16be:0x488b")?])?;
//! let mut hits = Vec::new();
//! let scanned = scanner.scan().physical(&memory, &[], &mut |hit| {
//!     hits.push((hit.addr.as_u64(), hit.pattern, hit.bytes.len()));
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(hits, [(0x1ffe, 0, 5), (0x1ffe, 1, 2)]);
//! assert!(scanned.is_complete());
//! # Ok::<(), Error>(())
//! ```
//!
//! Must not know: operating systems, plugins. Feature `scan`.

mod deliver;
mod engine;
mod pattern;
mod read;
mod regex;
mod run;
mod scanner;
mod source;
#[cfg(test)]
mod tests;
mod value;

pub use self::{
    pattern::{Case, MAX_PATTERN, Pattern, TextEncoding},
    regex::RegexOptions,
    run::{Ended, Hit, Match, Matches, OnProgress, Scan, Scanned, Unread},
    scanner::{MAX_PATTERNS, Scanner},
};
