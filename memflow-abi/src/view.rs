//! Memory that is read and written by address, across the boundary.
//!
//! Must not know: how an address becomes bytes.

use core::ffi::c_void;

use crate::{
    Grows,
    growing::{fixed, growing},
    report::{ReadOp, WriteOp},
};

fixed! {
    /// What a view covers.
    ViewInfo {
        /// The highest address that can be asked for.
        last_address: u64,
        /// Size of a pointer in bytes: 4 or 8.
        pointer_size: u32,
        /// Not zero when writes are refused.
        read_only: u32,
    }
}

fixed! {
    /// A handle of a view.
    View {
        /// First argument of every function of the table.
        context: *mut c_void,
        /// The functions.
        table: Grows<ViewTable>,
    }
}

growing! {
    /// The functions of a view.
    ViewTable, ViewTableRef, ViewTablePrefix {
        /// The context of another handle for the same view; may be the same pointer.
        clone: Option<unsafe extern "C" fn(context: *mut c_void) -> *mut c_void>,
        /// Gives up a handle.
        drop: Option<unsafe extern "C" fn(context: *mut c_void)>,
        /// As `read` of physical memory, with the view's addresses.
        read: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32>,
        /// As `write` of physical memory, with the view's addresses.
        write: Option<unsafe extern "C" fn(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32>,
        /// Fills in what the view covers.
        info: Option<unsafe extern "C" fn(context: *mut c_void, info: *mut ViewInfo)>,
    }
}
