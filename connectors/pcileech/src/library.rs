//! LeechCore, loaded, and a device that it opened.
//!
//! Owns: every call of LeechCore. Must not know: where the library was found, maps of memory, batches.
//! Keeps: what LeechCore is given belongs to the call that gives it; what it returns is checked before it is used, and of an entry only
//! whether it is done. A loaded library stays until the process ends: threads of its drivers may outlive every handle.
//! Source: `leechcore.h` and `leechcore.c` of LeechCore 2; see `raw`.

use std::{
    ffi::{CStr, c_char, c_void},
    fmt, io,
    mem::ManuallyDrop,
    path::Path,
    ptr::{self, NonNull},
};

use libloading::Library as Loaded;
use memflow_core::{Error, Result};

use crate::raw::{self, Buffer, Command, Config, Create, ErrorInfo, GetOption, MapEntry, Release, Scatter, Transfer};

/// The version that is known.
const MAJOR: u64 = 2;
/// Bytes of a slot in the buffers of a transfer: no entry is larger.
pub(crate) const SLOT: usize = 0x1000;
/// Most entries of a memory map that are taken.
const MOST_RANGES: usize = 1 << 16;
/// Most UTF-16 units of an error's text that are taken.
const MOST_TEXT: u32 = 4096;

/// The functions of a loaded LeechCore.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    create: Create,
    close: Release,
    read: Transfer,
    write: Transfer,
    option: GetOption,
    command: Command,
    free: Release,
}

impl Library {
    /// Loads a library; its initialisers run.
    ///
    /// # Errors
    /// The system does not load it, or it lacks a function.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        // SAFETY: the file was named by the user, or lies where the system or whoever installed this program puts libraries; running its
        // initialisers is what they ask for. As for plugins, folders of libraries must be writable only by whom the user trusts.
        let loaded = unsafe { Loaded::new(path) };
        let loaded = loaded.map_err(|error| {
            let text = error_text(&error);
            Error::io(format!("loading {}", path.display()), io::Error::other(text))
        })?;
        // Never unloaded, so the functions stay where they are.
        let loaded = ManuallyDrop::new(loaded);
        let missing = |name: &str| Error::File {
            path: path.to_owned(),
            problem: format!("is no LeechCore {MAJOR}: it has no function {name}; give another with lib=").into(),
        };
        macro_rules! function {
            ($name:literal: $kind:ty) => {{
                // SAFETY: a function of this name has this type in `leechcore.h`; that the file is a LeechCore is the user's word.
                let symbol = unsafe { loaded.get::<$kind>(concat!($name, "\0")) };
                *symbol.map_err(|_| missing($name))?
            }};
        }
        Ok(Self {
            create: function!("LcCreateEx": Create),
            close: function!("LcClose": Release),
            read: function!("LcReadScatter": Transfer),
            write: function!("LcWriteScatter": Transfer),
            option: function!("LcGetOption": GetOption),
            command: function!("LcCommand": Command),
            free: function!("LcMemFree": Release),
        })
    }

    /// The text that comes with a refusal, which is then given back.
    fn refusal(&self, info: *mut c_void) -> Option<String> {
        let info = NonNull::new(info)?;
        let header: NonNull<ErrorInfo> = info.cast();
        // SAFETY: LeechCore sets the pointer to a structure of its own that lives until it is given back, or leaves it null.
        let header = unsafe { header.read_unaligned() };
        let mut units = Vec::new();
        if header.version == raw::ERROR_VERSION {
            let room = header.size.saturating_sub(size_of::<ErrorInfo>() as u32) / 2;
            for index in 0..header.text_len.min(room).min(MOST_TEXT) {
                let offset = size_of::<ErrorInfo>() + index as usize * 2;
                // SAFETY: the structure says that it has `size` bytes, and the unit ends within them.
                let unit = unsafe { info.byte_add(offset) };
                let unit: NonNull<u16> = unit.cast();
                // SAFETY: as above.
                units.push(unsafe { unit.read_unaligned() });
            }
        }
        // SAFETY: it came from LeechCore, is given back once, and is not used any more.
        unsafe { (self.free)(info.as_ptr()) };
        let text = String::from_utf16_lossy(&units);
        let text = text.trim_matches(['\0', '\n', '\r', ' ']);
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// An error of the loader with what the system said.
fn error_text(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}

/// What a device is to be opened with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// LeechCore's name of the device (`fpga`, `file://…`).
    pub(crate) device: &'a str,
    /// The agent to go through; empty for none.
    pub(crate) remote: &'a str,
    /// An address that LeechCore takes for the last one instead of searching for it; zero to let it search.
    pub(crate) last_address: u64,
}

/// A device that LeechCore opened.
pub(crate) struct Device {
    library: Library,
    /// INVARIANT: what `LcCreateEx` returned, not yet closed.
    handle: NonNull<c_void>,
    /// What LeechCore calls the device.
    pub(crate) name: String,
    /// Whether the memory changes by itself.
    pub(crate) volatile: bool,
    /// Whether it takes writes.
    pub(crate) writable: bool,
}

// SAFETY: LeechCore is thread-safe but for opening and closing: calls on a handle take the lock of that handle (`LcLockAcquire` in
// `leechcore.c`) unless its device says that it does not need one. Closing happens in `drop`, when no other call can be under way.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device {
    /// Opens a device.
    ///
    /// # Errors
    /// A text does not fit, LeechCore refuses, or its version is not known.
    pub(crate) fn open(library: Library, request: &Request<'_>) -> Result<Self> {
        let mut config = Config {
            version: raw::CONFIG_VERSION,
            verbosity: 0,
            device: text("device", request.device)?,
            remote: text("remote", request.remote)?,
            printf: None,
            last_address: request.last_address,
            volatile: 0,
            writable: 0,
            is_remote: 0,
            remote_uncompressed: 0,
            device_name: [0; raw::TEXT],
        };
        let mut info = ptr::null_mut();
        // SAFETY: both point to values of this call with the layouts that their versions name, and LeechCore keeps neither.
        let handle = unsafe { (library.create)(&raw mut config, &raw mut info) };
        let Some(handle) = NonNull::new(handle) else {
            let said = library.refusal(info).unwrap_or_else(|| {
                "LeechCore refused without a reason; is the name right, the hardware connected, and its driver beside the library?".into()
            });
            return Err(Error::io(format!("opening LeechCore device {}", request.device), io::Error::other(said)));
        };
        let name = name(&config.device_name);
        let device = Self { library, handle, name, volatile: config.volatile != 0, writable: config.writable != 0 };
        match device.option(raw::OPTION_VERSION_MAJOR) {
            Some(MAJOR) => Ok(device),
            found => Err(Error::Unsupported {
                what: match found {
                    Some(found) => format!("LeechCore {found}"),
                    None => "a LeechCore that does not tell its version".to_owned(),
                },
                why: format!("version {MAJOR} is known; give another with lib="),
            }),
        }
    }

    /// Whether it is LeechCore's device for files (`device_file.c`), which reads and writes through buffers of the C library.
    pub(crate) fn is_file(&self) -> bool {
        self.name == "file"
    }

    /// A number that LeechCore knows about itself or the device.
    fn option(&self, option: u64) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the handle is open, and the value belongs to this call.
        let ok = unsafe { (self.library.option)(self.handle.as_ptr(), option, &raw mut value) };
        (ok != 0).then_some(value)
    }

    /// Where LeechCore takes memory to lie. Empty when it has no map.
    ///
    /// # Errors
    /// It is not whole entries, or too many.
    pub(crate) fn memory_map(&self) -> Result<Vec<MapEntry>> {
        let (mut out, mut len) = (ptr::null_mut(), 0);
        // SAFETY: the handle is open, there is no input, and both results belong to this call.
        let ok = unsafe {
            (self.library.command)(
                self.handle.as_ptr(),
                raw::COMMAND_MAP,
                0,
                ptr::null_mut(),
                &raw mut out,
                &raw mut len,
            )
        };
        let Some(out) = NonNull::new(out) else { return Ok(Vec::new()) };
        let (count, rest) = (len as usize / size_of::<MapEntry>(), len as usize % size_of::<MapEntry>());
        let taken = if ok != 0 && rest == 0 && count <= MOST_RANGES { count } else { 0 };
        let mut entries = Vec::with_capacity(taken);
        let first: NonNull<MapEntry> = out.cast();
        for index in 0..taken {
            // SAFETY: LeechCore says that `len` bytes are there, and this entry lies within them.
            let entry = unsafe { first.add(index) };
            // SAFETY: as above; entries are plain numbers.
            entries.push(unsafe { entry.read_unaligned() });
        }
        // SAFETY: it came from LeechCore, is given back once, and is not used any more.
        unsafe { (self.library.free)(out.as_ptr().cast()) };
        if ok != 0 && taken != count || rest != 0 {
            return Err(Error::Unsupported {
                what: format!("a memory map of {len:#x} bytes from LeechCore device {}", self.name),
                why: format!("whole entries of 24 bytes, at most {MOST_RANGES}, were expected; give one with map="),
            });
        }
        Ok(entries)
    }

    /// Reads into slots of `data`: the entry with index `i` into the first bytes of slot `i`. Says which entries are done; the slots of
    /// the others hold anything.
    pub(crate) fn read(&self, entries: &[(u64, u32)], data: &mut [u8]) -> Vec<bool> {
        self.transfer(self.library.read, entries, data)
    }

    /// Writes from slots of `data`, laid out as for [`read`](Self::read). Says which entries are done.
    pub(crate) fn write(&self, entries: &[(u64, u32)], data: &mut [u8]) -> Vec<bool> {
        self.transfer(self.library.write, entries, data)
    }

    /// One call for all entries. An entry without a whole slot, larger than one or across a page is not passed on.
    fn transfer(&self, call: Transfer, entries: &[(u64, u32)], data: &mut [u8]) -> Vec<bool> {
        let mut scatters: Vec<Scatter> = Vec::with_capacity(entries.len());
        for ((address, len), slot) in entries.iter().zip(data.chunks_exact_mut(SLOT)) {
            let inside = u64::from(*len) <= raw::PAGE - address % raw::PAGE;
            if !inside {
                break;
            }
            scatters.push(Scatter {
                version: raw::SCATTER_VERSION,
                done: 0,
                address: *address,
                buffer: slot_buffer(slot),
                len: *len,
                stack_top: 0,
                stack: [0; 12],
            });
        }
        let first = scatters.as_mut_ptr();
        // SAFETY: the index is that of an element, so the pointer stays within the allocation.
        let mut pointers: Vec<*mut Scatter> = (0..scatters.len()).map(|index| unsafe { first.add(index) }).collect();
        let Ok(count) = u32::try_from(pointers.len()) else { return vec![false; entries.len()] };
        if count > 0 {
            // SAFETY:
            // - the handle is open;
            // - `pointers` has `count` pointers to entries of this call, which nothing else refers to meanwhile;
            // - each entry's buffer is a slot of `data` of its own, of at least `len` bytes;
            // - LeechCore keeps none of them when it returns.
            unsafe { call(self.handle.as_ptr(), count, pointers.as_mut_ptr()) };
        }
        // Whatever else it changed in them is not looked at.
        let mut done: Vec<bool> = scatters.iter().map(|scatter| scatter.done != 0).collect();
        done.resize(entries.len(), false);
        done
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: the handle is open, is closed once, and no call on it can be under way as this is the only reference.
        unsafe { (self.library.close)(self.handle.as_ptr()) };
    }
}

/// A slot as the buffer of an entry, all 64 bits of it defined.
fn slot_buffer(slot: &mut [u8]) -> Buffer {
    let mut buffer = Buffer { filler: 0 };
    buffer.bytes = slot.as_mut_ptr();
    buffer
}

/// A text as LeechCore takes it.
fn text(what: &'static str, text: &str) -> Result<[c_char; raw::TEXT]> {
    let bytes = text.as_bytes();
    if bytes.len() >= raw::TEXT || bytes.contains(&0) {
        return Err(Error::Argument {
            what: what.into(),
            expected: format!("at most {} bytes without NUL", raw::TEXT - 1).into(),
            found: format!("{} bytes", bytes.len()),
        });
    }
    let mut out = [0; raw::TEXT];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = from.cast_signed() as c_char;
    }
    Ok(out)
}

/// A text from LeechCore, which may lack its terminator.
fn name(bytes: &[c_char; raw::TEXT]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).chain([0]).collect();
    CStr::from_bytes_until_nul(&bytes).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
