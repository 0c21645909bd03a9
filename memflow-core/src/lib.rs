//! Machine introspection: physical memory, page-table translation, memory views and OS traits.
//!
//! Data flows one way, and each folder knows only what stands before it:
//!
//! ```text
//! address → memory → paging → view → scan → os → plugin
//! ```
//!
//! * [`memory`]: where bytes of physical memory come from, and how a batch of reads is asked for and answered;
//! * [`paging`]: page tables, from a virtual address to a physical one and back;
//! * [`view`]: reading and writing by address in any space, with typed reads and strings on top;
//! * `scan` (feature `scan`, on by default): looking for bytes, text, values and regular expressions in physical memory and in views;
//! * [`os`]: what an operating system layer offers: processes, modules, threads;
//! * `plugin` (feature `inventory`, on by default): connectors and OS layers that are found and loaded at run time.
//!
//! Connectors (sources of physical memory) and OS layers are crates of their own. The feature `testkit` adds synthetic machines
//! and memory that fails on demand, for their tests.

pub mod address;
pub mod error;
pub mod memory;
pub mod os;
pub mod paging;
#[cfg(feature = "inventory")]
pub mod plugin;
#[cfg(feature = "scan")]
pub mod scan;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod units;
pub mod view;

pub use dataview::Pod;

pub use crate::{
    address::{PageSize, PhysAddr, PhysRange, VirtAddr, VirtRange},
    error::{Error, Reason, Result},
    memory::PhysicalMemory,
    view::{MemoryView, MemoryViewExt},
};
