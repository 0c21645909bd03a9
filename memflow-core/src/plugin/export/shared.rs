//! Contexts of handles: an `Arc` of ours, as the pointer that the other side holds.
//!
//! Owns: how a handle is made, looked into, cloned and dropped, whatever it is of. Must not know: what handles are of.
//! Keeps: each handle holds one count of its `Arc`.

use std::{ffi::c_void, sync::Arc};

use super::guard;

/// The context of a new handle.
pub(super) fn context<T>(shared: Arc<T>) -> *mut c_void {
    Arc::into_raw(shared).cast_mut().cast()
}

/// What a context leads to.
///
/// # Safety
/// The context was made by [`context`] of a `T`, for a handle that is not dropped for `'a`.
pub(super) unsafe fn get<'a, T>(context: *mut c_void) -> &'a T {
    // SAFETY: the caller's promise: the handle keeps the `Arc` alive.
    unsafe { &*context.cast::<T>() }
}

/// A further count of what a context leads to.
///
/// # Safety
/// As [`get`], for the call.
pub(super) unsafe fn arc<T>(context: *mut c_void) -> Arc<T> {
    // SAFETY: the caller's promise: it came from `Arc::into_raw`, and a count is held for the call.
    unsafe { Arc::increment_strong_count(context.cast::<T>()) };
    // SAFETY: the count that was just added is the one that this takes.
    unsafe { Arc::from_raw(context.cast::<T>()) }
}

/// The `clone` of a table: a handle of the same `T`.
pub(super) unsafe extern "C" fn clone<T>(context: *mut c_void) -> *mut c_void {
    // SAFETY: the ABI's contract: the context is that of a living handle, so it came from `Arc::into_raw`.
    unsafe { Arc::increment_strong_count(context.cast::<T>()) };
    context
}

/// The `drop` of a table.
pub(super) unsafe extern "C" fn drop_handle<T>(context: *mut c_void) {
    // SAFETY: the ABI's contract: the handle is given up, and its context came from `Arc::into_raw`.
    let shared = unsafe { Arc::from_raw(context.cast::<T>()) };
    guard::quietly((), || drop(shared));
}
