//! The first words with a stub: what it can do, and how it is spoken to.
//!
//! Owns: [`Abilities`], the choice of a [`Style`], and whether addresses are physical. Must not know: what is asked for later.
//! Keeps: a stub whose addresses are not known to be physical is refused.
//! Source: GDB manual, appendix "GDB Remote Serial Protocol", "General Query Packets", "Packet Acknowledgment"; QEMU docs/system/gdb.rst.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use memflow_core::{Error, Result};

use crate::{
    hex,
    link::Link,
    open::{Options, Physical, Runs},
    session::{Request, Session, Style},
};

/// Packet size of a stub that does not tell one, as GDB assumes it.
const DEFAULT_PACKET: u64 = 400;
/// Packets below this cannot hold a memory request and some bytes.
const MIN_PACKET: u64 = 64;
/// Of larger packets no more than this is used.
const MAX_PACKET: u64 = 16 << 10;
/// Requests on the way at once, with a stub that does without acknowledgements.
const AHEAD: usize = 64;

/// What a stub can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    /// Longest packet it takes and sends, in bytes.
    pub packet: usize,
    /// `qXfer:features:read`.
    pub features: bool,
    /// `qXfer:memory-map:read`.
    pub memory_map: bool,
    /// `x`: reads in binary.
    pub binary_read: bool,
    /// `X`: writes in binary.
    pub binary_write: bool,
}

/// Speaks to a stub for the first time. The target runs on after it, if that is wanted.
///
/// # Errors
/// The connection is lost; its answers are no stub's; its addresses are not physical.
pub(crate) fn shake(link: Link, options: &Options) -> Result<(Session, Abilities)> {
    let mut session = Session::new(link);
    // Until it is known whether the target is to run, an error leaves it as the stub does for whoever hangs up.
    session.set_leave_running(options.run != Runs::Never);
    // What a client before us left unanswered is done with.
    session.link().send(b"+")?;
    let mut abilities = supported(&mut session)?;
    let quiet = session.ask_one(Request::new("QStartNoAckMode"))? == b"OK";
    if quiet {
        let ahead = options.ahead.unwrap_or(AHEAD).clamp(1, 1024);
        session.set_style(Style::Plain { acks: false, ahead });
    }
    let mode = session.ask_one(Request::new("qqemu.PhyMemMode"))?;
    match (mode.as_slice(), options.physical) {
        (b"0" | b"1", _) => {
            session.set_physical_before(mode == b"1");
            session.set_style(Style::Qemu { acks: !quiet });
            let ran = session.was_stopped();
            session.set_leave_running(ran && options.run != Runs::Never);
            if ran && options.run == Runs::Between {
                session.resume()?;
            }
        }
        (_, Physical::Assume) => {
            if session.ask_one(Request::new("vCont?"))?.split(|byte| *byte == b';').any(|action| action == b"c") {
                session.set_go(b"vCont;c");
            }
            if options.run == Runs::Between {
                session.resume()?;
            }
        }
        (_, Physical::Switch) => {
            return Err(Error::Unsupported {
                what: session.name().to_owned(),
                why:
                    "it has no switch to physical addresses (`Qqemu.PhyMemMode`); if its addresses are physical anyway, \
                     say so with `physical=assume`"
                        .to_owned(),
            });
        }
    }
    abilities.binary_write = !session.is_qemu() && session.ask_one(Request::new("X0,0:"))? == b"OK";
    Ok((session, abilities))
}

/// What the stub says it supports.
fn supported(session: &mut Session) -> Result<Abilities> {
    let answer = session.ask_one(Request::new("qSupported:xmlRegisters=i386,arm"))?;
    let mut abilities =
        Abilities { packet: 0, features: false, memory_map: false, binary_read: false, binary_write: false };
    let mut packet = DEFAULT_PACKET;
    for feature in answer.split(|byte| *byte == b';') {
        match feature {
            b"qXfer:features:read+" => abilities.features = true,
            b"qXfer:memory-map:read+" => abilities.memory_map = true,
            b"binary-upload+" => abilities.binary_read = true,
            _ => {
                let Some(size) = feature.strip_prefix(b"PacketSize=") else { continue };
                let Some(size) = hex::number(size).filter(|size| *size >= MIN_PACKET) else {
                    return Err(session
                        .link()
                        .violation(format!("has a packet size that is none: {}", feature.escape_ascii())));
                };
                packet = size.min(MAX_PACKET);
            }
        }
    }
    abilities.packet = usize::try_from(packet).unwrap_or(usize::MAX);
    Ok(abilities)
}
