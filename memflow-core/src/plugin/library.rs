//! A plugin's file, loaded.
//!
//! Owns: the load itself, the checks that need the loaded table, and calls through it.
//! Must not know: how the file was found and why it was chosen.
//! Keeps: only a file whose descriptor was accepted is loaded, and the loaded code must carry the same descriptor. A loaded library
//! stays until the process ends: threads, signal handlers and thread-locals of its code may outlive every handle.

use std::{
    collections::{HashMap, hash_map::Entry},
    ffi::c_void,
    fmt,
    mem::ManuallyDrop,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, Once, PoisonError},
};

use libloading::Library;
use memflow_abi::{
    Argument, ConnectorRequest as ConnectorWire, Grows, Memory, OpenReport, Os as OsHandle, OsRequest as OsWire,
    PluginEntry, Progress, Text, TypeLayout,
};

use super::{
    args::Args,
    definition::{Connection, ConnectorRequest, OnProgress, OsRequest, TargetInfo},
    descriptor::Descriptor,
    export, import, log,
    wire::raw,
};
use crate::{
    error::{Error, Result},
    os::Os,
};

/// A loaded plugin.
pub(super) struct Loaded {
    who: String,
    entry: PluginEntry,
    attached: Once,
}

// SAFETY: an entry is a constant of its library, which stays loaded; its functions may be called from any thread.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("who", &self.who).finish_non_exhaustive()
    }
}

/// Plugins by file and entry symbol.
type ByFile = HashMap<(PathBuf, String), Arc<Loaded>>;

/// Every plugin that is loaded.
static LOADED: LazyLock<Mutex<ByFile>> = LazyLock::new(Mutex::default);

/// Loads the plugin that `descriptor` describes from the file that it was read from.
///
/// # Errors
/// [`Error::File`] with what is wrong with the file or with the table in it.
pub(super) fn load(path: &Path, descriptor: &Descriptor) -> Result<Arc<Loaded>> {
    let key = (path.to_owned(), descriptor.entry.clone());
    let plugin = match LOADED.lock().unwrap_or_else(PoisonError::into_inner).entry(key) {
        Entry::Occupied(known) => known.get().clone(),
        Entry::Vacant(place) => place.insert(Arc::new(open(path, descriptor)?)).clone(),
    };
    // The plugin's code runs without the lock: it may log, and the host's logger may do anything.
    plugin.attach();
    Ok(plugin)
}

fn open(path: &Path, descriptor: &Descriptor) -> Result<Loaded> {
    let refused = |problem: String| Error::File { path: path.to_owned(), problem: problem.into() };
    // SAFETY: code of the file runs, as with any library; that its descriptor says that it is a plugin for this host is all that can
    // be known before.
    let library = unsafe { Library::new(path) }.map_err(|error| refused(format!("cannot be loaded: {error}")))?;
    // A library that has run may have left something behind that refers to it.
    let library = ManuallyDrop::new(library);
    // SAFETY: the descriptor says that the symbol is a table of this kind; what it says of itself is checked next.
    let symbol = unsafe { library.get::<*const PluginEntry>(descriptor.entry.as_bytes()) };
    let symbol = symbol.map_err(|error| refused(format!("has no symbol {}: {error}", descriptor.entry)))?;
    // SAFETY: the ABI's contract: the symbol is a table, whose header says how long it is; the library stays loaded.
    let entry = unsafe { raw::structure(Grows { ptr: *symbol }) };
    let entry = entry
        .ok_or_else(|| refused(format!("symbol {} is no table of ABI {}.x", descriptor.entry, super::ABI.major)))?;
    // SAFETY: the ABI's contract: the bytes are a constant of the library.
    let carried = unsafe { raw::bytes(entry.descriptor) }.map(Descriptor::parse_section);
    let same = |found: &Descriptor| found == descriptor;
    if !carried.is_some_and(|list| list.is_ok_and(|list| list.iter().flatten().any(same))) {
        let problem = "its code carries another descriptor than its file; it was replaced meanwhile, try again";
        return Err(refused(problem.to_owned()));
    }
    check_layout(&entry, descriptor).map_err(refused)?;
    ::log::debug!("{}: loaded {} {}", path.display(), descriptor.name, descriptor.version);
    let who = format!("plugin {} {}", descriptor.name, descriptor.version);
    Ok(Loaded { who, entry, attached: Once::new() })
}

/// Compares the layouts of structures where the plugin brings a description of its own.
fn check_layout(entry: &PluginEntry, descriptor: &Descriptor) -> std::result::Result<(), String> {
    if descriptor.layout.as_deref() != Some(super::derive::LAYOUT) || entry.layout.is_null() {
        return Ok(());
    }
    // SAFETY: the descriptor says that the pointer is to a description of this kind; it is a constant of the library, which stays.
    let theirs: &'static TypeLayout = unsafe { &*entry.layout.cast::<TypeLayout>() };
    let ours = (memflow_abi::MINOR, memflow_abi::LAYOUT);
    // The comparison is somebody else's code, fed with what the plugin holds.
    let compared = catch_unwind(AssertUnwindSafe(|| memflow_abi::compatible(ours, (descriptor.abi.minor, theirs))));
    let difference = match compared {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(difference)) => difference,
        Err(_) => "its description cannot be read".to_owned(),
    };
    Err(format!(
        "was built with other structures than ABI {} has, although it says ABI {}: {difference}",
        super::ABI,
        descriptor.abi
    ))
}

/// Tells every loaded plugin the level that the host's log has now.
pub(super) fn forward_log_level() {
    let plugins: Vec<Arc<Loaded>> = LOADED.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    for plugin in plugins {
        plugin.set_log_level();
    }
}

impl Loaded {
    /// Introduces the host to the plugin, once; whoever comes meanwhile waits.
    fn attach(&self) {
        self.attached.call_once(|| {
            if let Some(attach) = self.entry.attach {
                // SAFETY: a function of the plugin's table; the host's offer is a constant.
                unsafe { attach(Grows::new(&log::HOST)) };
            }
            self.set_log_level();
        });
    }

    fn set_log_level(&self) {
        if let Some(set) = self.entry.set_log_level {
            // SAFETY: a function of the plugin's table.
            unsafe { set(log::host_level()) };
        }
    }

    fn required<F>(&self, name: &str, function: Option<F>) -> Result<F> {
        import::required(&self.who, name, function)
    }

    /// Opens a target.
    ///
    /// # Errors
    /// The connector's, or what is wrong with what it returned.
    pub(super) fn open_connector(&self, request: &ConnectorRequest<'_>) -> Result<Connection> {
        let open = self.required("open_connector", self.entry.open_connector)?;
        self.set_log_level();
        let arguments = arguments(request.args);
        let teller = Teller(request.progress);
        let report = Mutex::new(Report::default());
        let mut wire = ConnectorWire::empty();
        wire.target = request.target.map_or(Text::NONE, Text::new);
        wire.content = request.content.map_or(Text::NONE, Text::bytes);
        wire.arguments = arguments.as_ptr();
        wire.argument_count = arguments.len();
        wire.progress = teller.wire();
        if let Some(input) = &request.input {
            wire.input = export::os(input.clone());
        }
        wire.report = OpenReport {
            context: (&raw const report).cast_mut().cast(),
            format: Some(take_format),
            note: Some(take_note),
            alternative: Some(take_alternative),
        };
        // SAFETY: a function of the plugin's table; the request is whole for the call, and `out` is the callee's to fill in. A handle of
        // zeros is valid, if useless.
        let call = |out: *mut Memory, failure| unsafe { open(Grows::new(&wire), out, failure) };
        // SAFETY: as above.
        let source = unsafe { import::filled(&self.who, call) }?;
        // SAFETY: the ABI's contract: a function that succeeds has filled in a handle that is handed over.
        let memory = unsafe { import::memory(source, &self.who) }?;
        let Report { format, notes, alternatives } = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut connection = Connection::new(memory).with_format(format);
        connection.notes = notes;
        for text in alternatives {
            connection.alternatives.push(
                text.parse()
                    .map_err(|error: Error| error.context(format!("{}: arguments that it proposes", self.who)))?,
            );
        }
        Ok(connection)
    }

    /// Recognises an operating system.
    ///
    /// # Errors
    /// The OS layer's, or what is wrong with what it returned.
    pub(super) fn open_os(&self, request: OsRequest<'_>) -> Result<Arc<dyn Os>> {
        let open = self.required("open_os", self.entry.open_os)?;
        self.set_log_level();
        let arguments = arguments(request.args);
        let teller = Teller(request.progress);
        let mut wire = OsWire::empty();
        wire.memory = export::memory(request.memory.clone());
        wire.arguments = arguments.as_ptr();
        wire.argument_count = arguments.len();
        wire.progress = teller.wire();
        // SAFETY: a function of the plugin's table; the request is whole for the call, and `out` is the callee's to fill in. A handle of
        // zeros is valid, if useless.
        let call = |out: *mut OsHandle, failure| unsafe { open(Grows::new(&wire), out, failure) };
        // SAFETY: as above.
        let source = unsafe { import::filled(&self.who, call) }?;
        // SAFETY: the ABI's contract: a function that succeeds has filled in a handle that is handed over.
        unsafe { import::os(source, &self.who, Some(request.memory)) }
    }

    /// The targets that a connector could open now; `None` when it does not tell.
    ///
    /// # Errors
    /// The connector's.
    pub(super) fn targets(&self) -> Result<Option<Vec<TargetInfo>>> {
        let Some(targets) = self.entry.targets else { return Ok(None) };
        // SAFETY: a function of the plugin's table.
        let listing = import::collect(&self.who, |sink, failure| unsafe { targets(sink, failure) })?;
        listing.into_complete().map(Some)
    }
}

/// Arguments that borrow from `args`.
fn arguments(args: &Args) -> Vec<Argument> {
    args.iter()
        .map(|(name, value)| Argument { name: Text::new(name), value: value.text().map_or(Text::NONE, Text::new) })
        .collect()
}

/// Who is told progress by the other side.
struct Teller<'a>(OnProgress<'a>);

impl Teller<'_> {
    /// Where progress is told; good for as long as this lives.
    fn wire(&self) -> Progress {
        Progress { context: (&raw const *self).cast_mut().cast(), step: Some(step) }
    }
}

unsafe extern "C" fn step(context: *mut c_void, stage: Text, done: u64, total: u64) -> i32 {
    // SAFETY: the context is a `Teller` that lives as long as the call that it was made for.
    let teller = unsafe { &*context.cast::<Teller<'_>>() };
    // SAFETY: the ABI's contract: the text is whole for the call.
    let stage = unsafe { raw::text(stage) }.unwrap_or_default();
    let told = catch_unwind(AssertUnwindSafe(|| (teller.0)(&stage, done, total)));
    i32::from(!matches!(told, Ok(ControlFlow::Continue(()))))
}

/// Most texts of a kind that a connector tells of what it opened; nobody reads more.
const MAX_NOTES: usize = 1000;

/// What a connector tells of what it opened.
#[derive(Default)]
struct Report {
    format: String,
    notes: Vec<String>,
    alternatives: Vec<String>,
}

/// Adds a text to a report.
///
/// # Safety
/// The context is a report that lives for the call, and the text is whole.
unsafe fn told(context: *mut c_void, text: Text, add: impl FnOnce(&mut Report, String)) {
    // SAFETY: the caller's promise.
    let report = unsafe { &*context.cast::<Mutex<Report>>() };
    // SAFETY: the caller's promise.
    let text = unsafe { raw::string(text) };
    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
    if report.notes.len().max(report.alternatives.len()) < MAX_NOTES {
        add(&mut report, text);
    }
}

unsafe extern "C" fn take_format(context: *mut c_void, text: Text) {
    // SAFETY: the context is that of `open_connector`'s request, which lives for the call; the text is whole by the ABI's contract.
    unsafe { told(context, text, |report, text| report.format = text) };
}

unsafe extern "C" fn take_note(context: *mut c_void, text: Text) {
    // SAFETY: as in `take_format`.
    unsafe { told(context, text, |report, text| report.notes.push(text)) };
}

unsafe extern "C" fn take_alternative(context: *mut c_void, text: Text) {
    // SAFETY: as in `take_format`.
    unsafe { told(context, text, |report, text| report.alternatives.push(text)) };
}
