//! Survives SIGBUS on mapped files that were cut short.
//!
//! Reading a page of a mapping that lies past the end of its file raises SIGBUS, which by default ends the process. While a
//! mapping is registered here, the page is replaced by an empty one instead and its offset recorded; whoever read it asks
//! [`Guarded::lost_from`] afterwards and reports an error.
//!
//! Owns: the process-wide signal handler and its table of mappings.
//! Must not know: what is mapped. Keeps: a SIGBUS outside registered mappings goes to whoever handled it before.
//! Source: POSIX `sigaction(2)`, `mmap(2)` (a reference past the end of the file raises SIGBUS).

use std::{
    mem, ptr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// Mappings that can be registered at one time; further ones are refused and their files read by position.
const SLOTS: usize = 128;

/// Sizes of pages that files are mapped in; huge ones are replaced whole or not at all.
const PAGE_SIZES: [usize; 3] = [SMALL, 2 << 20, 1 << 30];
const SMALL: usize = 4096;

/// One registered mapping. The handler reads these without locks.
struct Slot {
    /// First address; zero when the slot is free, `CLAIMED` while it is being filled.
    start: AtomicUsize,
    /// Address after the last.
    end: AtomicUsize,
    /// Lowest offset at which a page was missing.
    lost_from: AtomicU64,
}

/// A slot that is taken but not filled yet: no address, as no mapping starts at the last one.
const CLAIMED: usize = usize::MAX;

static TABLE: [Slot; SLOTS] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), lost_from: AtomicU64::new(u64::MAX) } };
        SLOTS];

/// What handled SIGBUS before us. Set before our handler is installed.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping that may be cut short. Dropping it must come before the mapping is taken away.
#[derive(Debug)]
pub(super) struct Guarded {
    slot: usize,
}

impl Guarded {
    /// Registers `len` bytes from `start`; `None` when the handler cannot be installed or the table is full.
    pub(super) fn register(start: usize, len: usize) -> Option<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if !*INSTALLED.get_or_init(install) {
            return None;
        }
        let end = start.checked_add(len)?;
        let slot = TABLE
            .iter()
            .position(|slot| slot.start.compare_exchange(0, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok())?;
        let entry = TABLE.get(slot)?;
        entry.lost_from.store(u64::MAX, Ordering::Relaxed);
        entry.end.store(end, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Some(Self { slot })
    }

    /// Where the lowest offset at which a page was found missing is noted; `u64::MAX` while none was.
    #[inline]
    pub(super) fn lost_from(&self) -> Option<&AtomicU64> {
        TABLE.get(self.slot).map(|slot| &slot.lost_from)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(slot) = TABLE.get(self.slot) {
            slot.end.store(0, Ordering::Relaxed);
            slot.start.store(0, Ordering::Release);
        }
    }
}

/// Puts our handler in front of whatever handles SIGBUS now.
fn install() -> bool {
    let mut previous = mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks for the current one, which is written to `previous`.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call above succeeded and filled it; all-zero is a valid `sigaction` besides.
    let previous = unsafe { previous.assume_init() };
    if PREVIOUS.set(previous).is_err() {
        return false;
    }
    // SAFETY: all-zero is a valid `sigaction`: no flags, the default action, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_bus_error;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: `action` names a handler of the SA_SIGINFO form that only makes async-signal-safe calls.
    unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) == 0 }
}

/// The handler. Touches atomics, `mmap` and `sigaction` only.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the system passes a valid `siginfo_t`.
    let info_ref = unsafe { &*info };
    // SAFETY: the address field is the valid one of the union for SIGBUS.
    let address = unsafe { info_ref.si_addr() } as usize;
    if replace_page(address) {
        return;
    }
    forward(signal, info, context);
}

/// Replaces the missing page at `address` if a registered mapping holds it.
fn replace_page(address: usize) -> bool {
    for slot in &TABLE {
        let start = slot.start.load(Ordering::Acquire);
        let end = slot.end.load(Ordering::Relaxed);
        if start == 0 || start == CLAIMED || address < start || address >= end {
            continue;
        }
        return PAGE_SIZES.iter().any(|size| {
            let page = address & !(size - 1);
            // The last small page may be there in part only.
            let inside = page >= start && (*size == SMALL || end - page >= *size);
            if !inside || !replace(page, *size) {
                return false;
            }
            slot.lost_from.fetch_min(page.saturating_sub(start) as u64, Ordering::AcqRel);
            true
        });
    }
    false
}

/// Puts empty memory in place of a page of a registered mapping; false when the mapping has larger pages.
fn replace(page: usize, size: usize) -> bool {
    // SAFETY: the page lies in a mapping that is registered, so it is ours to replace; `Guarded` is dropped before the
    // mapping is unmapped, so the address cannot belong to anybody else.
    let new = unsafe {
        libc::mmap(
            page as *mut libc::c_void,
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    new != libc::MAP_FAILED
}

/// Hands the signal to whoever had it before.
fn forward(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get();
    if let Some(action) = previous
        && action.sa_sigaction != libc::SIG_DFL
        && action.sa_sigaction != libc::SIG_IGN
    {
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            // SAFETY: SA_SIGINFO says that the address is a handler of this form.
            let handler = unsafe {
                mem::transmute::<usize, extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void)>(
                    action.sa_sigaction,
                )
            };
            handler(signal, info, context);
        } else {
            // SAFETY: without SA_SIGINFO the address is a handler of the one-argument form.
            let handler = unsafe { mem::transmute::<usize, extern "C" fn(libc::c_int)>(action.sa_sigaction) };
            handler(signal);
        }
        return;
    }
    // Nobody had it: put the default action back; the instruction faults again and ends the process as it would have.
    // SAFETY: all-zero is a valid `sigaction`: the default action.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: a valid action for a valid signal.
    unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
}
