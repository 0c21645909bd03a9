//! Where members of the kernel's structures lie: from a table by the build's identification, from the kernel's block for debuggers, from
//! the code of functions that return a member, from a build that is near, confirmed in memory.
//!
//! Must not know: lists of processes and modules, what a member is used for.

mod accessors;
mod layout;
mod nearest;
mod table;

pub(crate) use self::{
    accessors::accessors,
    layout::Layout,
    nearest::{Check, nearest},
    table::{Row, columns, exact},
};
