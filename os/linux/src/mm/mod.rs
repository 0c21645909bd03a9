//! Address spaces as the kernel describes them: `struct mm_struct`, its regions, its arguments.
//!
//! Must not know: page tables, tasks.

mod arguments;
mod layout;
mod maple;
mod regions;
mod vma;

pub(crate) use self::{
    arguments::{command_line, environment},
    layout::{Mm, MmLayout},
    regions::{NameSources, memory_map},
};
