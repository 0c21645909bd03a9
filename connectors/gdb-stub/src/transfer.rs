//! Documents that a stub has: `qXfer`.
//!
//! Owns: reading one in pieces. Must not know: what is in it.
//! Keeps: a document has at most 1 MiB, and comes in a limited number of pieces.
//! Source: GDB manual, appendix "GDB Remote Serial Protocol", "General Query Packets", `qXfer`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::Result;

use crate::{
    packet::unescape,
    session::{Request, Session},
};

/// Longest document, in bytes.
pub(crate) const MAX_DOCUMENT: usize = 1 << 20;
/// Most pieces of a document.
const MAX_PIECES: usize = 8192;

/// Reads a document; `None` when the stub does not have it.
///
/// # Errors
/// The connection is lost, or what comes is no document.
pub(crate) fn read(session: &mut Session, object: &str, annex: &str, packet: usize) -> Result<Option<Vec<u8>>> {
    let mut document = Vec::new();
    // The letter ahead of the data is part of the packet.
    let most = packet.saturating_sub(8).max(16);
    for _ in 0..MAX_PIECES {
        let request = format!("qXfer:{object}:read:{annex}:{:x},{most:x}", document.len());
        let answer = session.ask_one(Request::new(request))?;
        let (last, piece) = match answer.as_slice() {
            [b'l', piece @ ..] => (true, unescape(piece)),
            [b'm', piece @ ..] => (false, unescape(piece).filter(|piece| !piece.is_empty())),
            [] | [b'E', ..] => return Ok(None),
            _ => (true, None),
        };
        let Some(piece) = piece else {
            return Err(session.link().violation(format!("sent a piece of {object} {annex} that is none")));
        };
        document.extend(piece);
        if document.len() > MAX_DOCUMENT {
            break;
        }
        if last {
            return Ok(Some(document));
        }
    }
    Err(session.link().violation(format!("sends {object} {annex} without an end")))
}
