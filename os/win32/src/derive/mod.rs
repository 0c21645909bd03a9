//! Offsets from the bytes of processes in memory: System, whose number and name are known, and others that must make sense beside it.
//!
//! Must not know: the table of builds. Every number that is found so held true of the processes it was tried on; what several places
//! could be is not guessed.

mod image;
mod modules;
mod objects;
mod process;
mod regions;
mod system;
mod threads;
mod times;

pub(crate) use self::process::derive;
