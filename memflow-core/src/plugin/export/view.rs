//! Views behind the C interface.
//!
//! Must not know: how an address becomes bytes.

use std::{ffi::c_void, sync::Arc};

use memflow_abi::{Grows, ReadOp, View, ViewInfo, ViewTable, WriteOp};

use super::{
    memory::{read_ops, write_ops},
    shared,
};
use crate::{plugin::wire::raw, view::MemoryView};

static TABLE: ViewTable = {
    let mut table = ViewTable::empty();
    table.clone = Some(shared::clone::<Exported>);
    table.drop = Some(shared::drop_handle::<Exported>);
    table.read = Some(read);
    table.write = Some(write);
    table.info = Some(info);
    table
};

/// A view that can be shared, and what it covers. A handle's context is an `Arc` of this.
struct Exported {
    view: Arc<dyn MemoryView>,
    covers: ViewInfo,
}

/// A handle of a view for the other side.
pub(super) fn view(view: Arc<dyn MemoryView>) -> View {
    let metadata = view.metadata();
    let covers = ViewInfo {
        last_address: metadata.last_address.as_u64(),
        pointer_size: metadata.pointer_size.into(),
        read_only: metadata.read_only.into(),
    };
    View { context: shared::context(Arc::new(Exported { view, covers })), table: Grows::new(&TABLE) }
}

unsafe extern "C" fn read(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the operations are the callee's for the call.
    let Some(ops) = (unsafe { raw::items_mut(ops, count) }) else { return i32::from(count != 0) };
    // SAFETY: the ABI's contract: the buffers are the callee's for the call.
    unsafe { read_ops(ops, |native| exported.view.read_batch(native)) };
    0
}

unsafe extern "C" fn write(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    // SAFETY: the ABI's contract: the operations are the callee's for the call.
    let Some(ops) = (unsafe { raw::items_mut(ops, count) }) else { return i32::from(count != 0) };
    // SAFETY: the ABI's contract: the buffers are readable for the call.
    unsafe { write_ops(ops, |native| exported.view.write_batch(native)) };
    0
}

unsafe extern "C" fn info(context: *mut c_void, info: *mut ViewInfo) {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { shared::get::<Exported>(context) };
    if !info.is_null() {
        // SAFETY: not null (just checked), and the ABI's contract: it is the callee's to fill in.
        unsafe { info.write(exported.covers) };
    }
}
