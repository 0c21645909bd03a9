//! The kernel's log (printk), oldest record first.
//!
//! Two layouts: descriptors, infos and text apart since Linux v5.10 ([`ring`]), records one after the other before ([`flat`]).
//!
//! Must not know: how a log is printed.

mod flat;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod read;
mod ring;
#[cfg(test)]
mod tests;

pub(crate) use self::read::read_log;
