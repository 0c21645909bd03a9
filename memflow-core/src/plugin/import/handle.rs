//! A handle of the other side: a context that is given up when ours is dropped.
//!
//! Must not know: what the handle is of.

use std::{ffi::c_void, fmt};

use memflow_abi::{Growing, Grows};

use crate::{
    error::{Error, ErrorKind},
    plugin::wire::raw,
};

/// A context, and the function that gives it up.
pub(super) struct Handle {
    // INVARIANT: belongs to this handle until it is dropped; every function of its table may be called with it from any thread.
    context: *mut c_void,
    drop: unsafe extern "C" fn(*mut c_void),
}

// SAFETY: the ABI lets any thread call the functions of a handle, and several at once.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Takes a context over.
    ///
    /// # Safety
    /// The context is that of a handle that is handed over, and `drop` the function of its table that gives it up.
    pub(super) unsafe fn new(context: *mut c_void, drop: unsafe extern "C" fn(*mut c_void)) -> Self {
        Self { context, drop }
    }

    /// A copy of the structure that a function answers with.
    ///
    /// # Safety
    /// The function is one of the table that the handle belongs to.
    pub(super) unsafe fn ask<T: Growing>(&self, function: unsafe extern "C" fn(*mut c_void) -> Grows<T>) -> Option<T> {
        // SAFETY: the caller's promise.
        let answer = unsafe { function(self.context) };
        // SAFETY: the ABI's contract of what such functions return.
        unsafe { raw::structure(answer) }
    }

    /// The context, for calls of functions of the same table.
    pub(super) fn context(&self) -> *mut c_void {
        self.context
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the context belongs to this handle (INVARIANT), which ends here.
        unsafe { (self.drop)(self.context) };
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({:p})", self.context)
    }
}

/// What is wrong with something that `who` handed over.
pub(super) fn broken(who: &str, what: impl fmt::Display) -> Error {
    Error::Foreign {
        kind: ErrorKind::Contract,
        message: format!("{who} broke the contract of plugins: {what}; this is a defect of {who}, please report it"),
        access: None,
    }
}

/// The error, with whose defect it is, if it is one; what else fails reads the same from a plugin in a file as from one that is built
/// in.
pub(in crate::plugin) fn blamed(who: &str, error: Error) -> Error {
    match error.kind() {
        ErrorKind::Contract | ErrorKind::Panic => error.context(who.to_owned()),
        _ => error,
    }
}

/// The function, or an error that names it.
pub(in crate::plugin) fn required<F>(who: &str, name: &str, function: Option<F>) -> Result<F, Error> {
    function.ok_or_else(|| broken(who, format_args!("function `{name}` is missing")))
}
