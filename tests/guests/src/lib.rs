//! Real guests for tests: packaged Linux kernels, booted in QEMU, captured together with their own truth.
//!
//! `Guests::locate()?.ensure("amd64-6.12-4level-pti")?` prepares a guest once and hands out its folder ever after;
//! [`Guests::boot`] starts one that stays alive. A captured guest's folder holds
//!
//! | file | content |
//! |---|---|
//! | `ram.img` | the RAM file, as it was when the vCPUs were stopped; `meta.json` says where its runs lie |
//! | `core.elf` | QEMU's `dump-guest-memory` of the same instant |
//! | `registers.txt`, `tlb.txt`, `mtree.txt` | `info registers -a`, `info tlb` (of vCPU 0), `info mtree -f` |
//! | `gva2gpa.txt` | QEMU's answers for a sample of addresses under vCPU 0's CR3, `va pa` or `va unmapped` |
//! | `meta.json` | [`Meta`] |
//! | `truth/` | what the guest said about itself, under its own paths; [`Truth`] parses it |
//! | `inner/` | of the guest `nested`: what the machine inside of it said about itself, see [`Inner`] |
//!
//! Must not know: anything of the library under test. This crate is the independent source of expected values.

mod addition;
mod arm;
mod capture;
mod channel;
mod demo;
mod error;
mod guests;
mod initramfs;
mod inner;
mod live;
mod machine;
mod meta;
mod modules;
pub mod monitor;
mod packages;
mod pipe;
mod program;
mod qemu;
mod spec;
mod tool;
mod truth;

pub use addition::Addition;
pub use arm::ArmBoot;
pub use demo::{DemoTruth, demo};
pub use error::{Error, Result};
pub use guests::{CapturedGuest, Guests};
pub use inner::Inner;
pub use live::{BareMachine, Live};
pub use machine::RunningGuest;
pub use meta::Meta;
pub use pipe::{keep_sparse, piped};
pub use program::known_text;
pub use spec::{Arch, BENCH, DEMO, MATRIX, Machine, NESTED, Paging, Spec, TIMED, all};
pub use tool::require;
pub use truth::{IoRange, LogRecord, Mapping, Module, Page, Process, Symbol, Thread, Truth};
