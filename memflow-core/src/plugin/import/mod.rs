//! Objects of the other side as ours.
//!
//! Owns: each trait over a table of functions, and the checks that make one usable. Must not know: where the tables come from.
//! Keeps: nothing is believed that can be checked: missing functions, counts, ranges and answers that were not given are errors that
//! name the plugin.

mod control;
mod handle;
mod list;
mod memory;
mod os;
mod process;
mod space;
mod view;

pub(super) use self::{
    handle::required,
    list::collect,
    memory::memory,
    os::{filled, os},
};
