//! Views behind the C interface.
//!
//! Must not know: how an address becomes bytes.

use std::{ffi::c_void, sync::Arc};

use memflow_abi::{Grows, ReadOp, View, ViewInfo, ViewTable, WriteOp};

use super::{
    guard,
    memory::{read_ops, write_ops},
};
use crate::{plugin::wire::raw, view::MemoryView};

static TABLE: ViewTable = {
    let mut table = ViewTable::empty();
    table.clone = Some(clone);
    table.drop = Some(drop_handle);
    table.read = Some(read);
    table.write = Some(write);
    table.info = Some(info);
    table
};

/// A view that can be shared. A handle's context is an `Arc` of this.
struct Exported(Arc<dyn MemoryView>);

/// A handle of a view for the other side.
pub(super) fn view(view: Arc<dyn MemoryView>) -> View {
    View { context: Arc::into_raw(Arc::new(Exported(view))).cast_mut().cast(), table: Grows::new(&TABLE) }
}

/// # Safety
/// `context` is one of a handle that [`view`] made and that has not been dropped.
unsafe fn exported<'a>(context: *mut c_void) -> &'a Exported {
    // SAFETY: the caller's promise: the handle keeps the `Arc` alive.
    unsafe { &*context.cast::<Exported>() }
}

unsafe extern "C" fn clone(context: *mut c_void) -> *mut c_void {
    // SAFETY: the ABI's contract: the context is that of a living handle, so it came from `Arc::into_raw`.
    unsafe { Arc::increment_strong_count(context.cast::<Exported>()) };
    context
}

unsafe extern "C" fn drop_handle(context: *mut c_void) {
    // SAFETY: the ABI's contract: the handle is given up, and its context came from `Arc::into_raw`.
    let exported = unsafe { Arc::from_raw(context.cast::<Exported>()) };
    guard::quietly((), || drop(exported));
}

unsafe extern "C" fn read(context: *mut c_void, ops: *mut ReadOp, count: usize) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the operations are the callee's for the call.
    let Some(ops) = (unsafe { raw::items_mut(ops, count) }) else { return i32::from(count != 0) };
    // SAFETY: the ABI's contract: the buffers are the callee's for the call.
    guard::status(|| unsafe { read_ops(ops, |native| drop(exported.0.read_batch(native))) })
}

unsafe extern "C" fn write(context: *mut c_void, ops: *mut WriteOp, count: usize) -> i32 {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    // SAFETY: the ABI's contract: the operations are the callee's for the call.
    let Some(ops) = (unsafe { raw::items_mut(ops, count) }) else { return i32::from(count != 0) };
    // SAFETY: the ABI's contract: the buffers are readable for the call.
    guard::status(|| unsafe { write_ops(ops, |native| drop(exported.0.write_batch(native))) })
}

unsafe extern "C" fn info(context: *mut c_void, info: *mut ViewInfo) {
    // SAFETY: the ABI's contract: the context is that of a living handle.
    let exported = unsafe { exported(context) };
    let fill = || {
        let metadata = exported.0.metadata();
        ViewInfo {
            last_address: metadata.last_address.as_u64(),
            pointer_size: metadata.pointer_size.into(),
            read_only: metadata.read_only.into(),
        }
    };
    let filled = guard::quietly(ViewInfo { last_address: 0, pointer_size: 0, read_only: 1 }, fill);
    if !info.is_null() {
        // SAFETY: not null (just checked), and the ABI's contract: it is the callee's to fill in.
        unsafe { info.write(filled) };
    }
}
