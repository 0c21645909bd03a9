//! What each thread holds of the heap, and held at most: an allocator that counts.
//!
//! Owns: the allocator of this process. Must not know: who asks for memory, what for.
//! Keeps: with glibc libraries in C, such as the decoders of zstd and xz, are counted like all else; elsewhere they are not seen.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// Adds to what this thread holds. Asks for no memory itself.
fn count(bytes: usize, sign: i64) {
    // A thread that ends has no counters any more.
    let _ended = HELD.try_with(|held| {
        held.set(held.get() + sign * i64::try_from(bytes).unwrap_or(i64::MAX));
        PEAK.try_with(|peak| peak.set(peak.get().max(held.get())))
    });
}

/// Begins to look for the most that is held; what is held now.
pub(crate) fn begin() -> i64 {
    let held = HELD.get();
    PEAK.set(held);
    held
}

/// The most that was held since.
pub(crate) fn peak() -> i64 {
    PEAK.get()
}

/// In place of the functions of the C library, which Rust's own allocator calls too. glibc allows that (The GNU C Library, 3.2.5
/// "Replacing malloc") and has its own under these names.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod counted {
    use std::{
        ffi::{c_int, c_void},
        ptr,
    };

    use super::count;

    unsafe extern "C" {
        fn __libc_malloc(size: usize) -> *mut c_void;
        fn __libc_calloc(items: usize, size: usize) -> *mut c_void;
        fn __libc_realloc(ptr: *mut c_void, size: usize) -> *mut c_void;
        fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
        fn __libc_free(ptr: *mut c_void);
        fn malloc_usable_size(ptr: *mut c_void) -> usize;
    }

    /// The room behind a pointer.
    ///
    /// # Safety
    /// It is null, or one of the functions here gave it and it was not freed.
    unsafe fn room(ptr: *mut c_void) -> usize {
        // SAFETY: that is what glibc's function asks for, as all of the functions here take their memory from glibc.
        unsafe { malloc_usable_size(ptr) }
    }

    /// Counts what was given.
    ///
    /// # Safety
    /// As for [`room`].
    unsafe fn given(ptr: *mut c_void) -> *mut c_void {
        // SAFETY: the caller keeps the contract of this function, which is the same.
        count(unsafe { room(ptr) }, 1);
        ptr
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
        // SAFETY: any size will do.
        let ptr = unsafe { __libc_malloc(size) };
        // SAFETY: it was just given.
        unsafe { given(ptr) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn calloc(items: usize, size: usize) -> *mut c_void {
        // SAFETY: any numbers will do; glibc looks at their product.
        let ptr = unsafe { __libc_calloc(items, size) };
        // SAFETY: it was just given.
        unsafe { given(ptr) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn realloc(ptr: *mut c_void, size: usize) -> *mut c_void {
        // SAFETY: whoever calls `realloc` has it from here, or it is null.
        let before = unsafe { room(ptr) };
        // SAFETY: the caller keeps the contract, which is glibc's.
        let moved = unsafe { __libc_realloc(ptr, size) };
        // SAFETY: it was just given, or is null.
        let moved = unsafe { given(moved) };
        // Both are there while the bytes are copied. Without a new one the old one stays, unless nothing was wanted.
        if !moved.is_null() || size == 0 {
            count(before, -1);
        }
        moved
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn free(ptr: *mut c_void) {
        // SAFETY: whoever calls `free` has it from here, or it is null.
        count(unsafe { room(ptr) }, -1);
        // SAFETY: as before; it is freed once, as the caller frees it once.
        unsafe { __libc_free(ptr) };
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
        // SAFETY: glibc takes any size, and makes a power of two of any alignment.
        let ptr = unsafe { __libc_memalign(align, size) };
        // SAFETY: it was just given.
        unsafe { given(ptr) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
        // SAFETY: the contract of `memalign` asks for less.
        unsafe { memalign(align, size) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn posix_memalign(out: *mut *mut c_void, align: usize, size: usize) -> c_int {
        const OUT_OF_MEMORY: c_int = 12;
        // SAFETY: the contract of `memalign` asks for less.
        let ptr = unsafe { memalign(align, size) };
        if ptr.is_null() {
            return OUT_OF_MEMORY;
        }
        // SAFETY: the caller has room for a pointer there.
        unsafe { ptr::write(out, ptr) };
        0
    }
}

/// Rust's own allocations, as everywhere.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod counted {
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::count;

    /// The system's allocator, with what each thread has of it.
    struct Counted;

    // SAFETY: every call is handed on to the system's allocator unchanged.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 1);
            // SAFETY: the caller keeps the contract of this method, which is that of the system's.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 1);
            // SAFETY: as in `alloc`.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // Both are there while the bytes are copied.
            count(size, 1);
            count(layout.size(), -1);
            // SAFETY: as in `alloc`.
            unsafe { System.realloc(ptr, layout, size) }
        }

        unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
            count(layout.size(), -1);
            // SAFETY: as in `alloc`.
            unsafe { System.dealloc(ptr, layout) }
        }
    }

    #[global_allocator]
    static ALLOCATOR: Counted = Counted;
}
