//! A connector in Rust as it was built against ABI 1.1: the structures by hand, without any later crate of memflow.
//!
//! It holds two runs of bytes that follow from their addresses, as `c/connector.c` does, and the tests ask both the same.
//! Owns: the connector `older_rust`. Must not know: versions after 1.1. Nothing here changes any more.

use std::{
    ffi::c_void,
    ptr, slice,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed},
    },
};

use memflow_abi::{
    ConnectorRequest, Facts, Failure, FailureSink, Grows, Header, Host, LogMessage, Memory, MemoryInfo, MemoryTable,
    OpenReport, Outcome, PluginEntry, ReadOp, RecordSink, Run, RunSink, TargetRecord, Text,
};

const DONE: u32 = 1;
const NOT_IN_IMAGE: u32 = 4;
const FROZEN: u32 = 2;
const X86_64: u32 = 2;
const NOT_FOUND: u32 = 10;
const INFO: u32 = 3;

const DESCRIPTOR_LEN: usize = DESCRIPTOR_TEXT.len();
const DESCRIPTOR_TEXT: &str = concat!(
    "memflow_plugin=1\0abi=1.1\0target=",
    env!("PLUGIN_TARGET"),
    "\0kind=connector\0name=older_rust\0version=0.1.0\0entry=older_rust_entry\0",
    "description=a connector that was built against ABI 1.1\0layout=abi_stable 0.11\0",
);

#[used]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__memflow"))]
#[cfg_attr(windows, unsafe(link_section = ".memflow"))]
#[cfg_attr(not(any(target_vendor = "apple", windows)), unsafe(link_section = "memflow_plugin"))]
static DESCRIPTOR: [u8; DESCRIPTOR_LEN] = *DESCRIPTOR_TEXT.as_bytes().first_chunk().unwrap();

#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
static older_rust_entry: PluginEntry = PluginEntry {
    descriptor: Text { ptr: DESCRIPTOR.as_ptr(), len: DESCRIPTOR_LEN },
    attach: Some(attach),
    set_log_level: Some(set_log_level),
    open_connector: Some(open),
    targets: Some(targets),
    ..PluginEntry::rust()
};

static TABLE: MemoryTable = MemoryTable {
    clone: Some(clone),
    drop: Some(drop_handle),
    read: Some(read),
    info: Some(info),
    facts: Some(facts),
    populated_runs: Some(populated_runs),
    ..MemoryTable::empty()
};

static HOST: AtomicPtr<Host> = AtomicPtr::new(ptr::null_mut());
static LEVEL: AtomicU32 = AtomicU32::new(0);

const RUNS: [Run; 2] =
    [Run { start: 0x1000, len: 0x1000, offset: 0 }, Run { start: 0x8000, len: 0x800, offset: 0x1000 }];

/// What a handle's context is an `Arc` of.
struct Opened {
    name: String,
    runs: [Run; 2],
    info: MemoryInfo,
    facts: Facts,
}

fn text(text: &str) -> Text {
    Text { ptr: text.as_ptr(), len: text.len() }
}

fn byte(address: u64) -> u8 {
    (address ^ (address >> 8)) as u8
}

fn outcome(status: u32, offset: u64, address: u64) -> Outcome {
    Outcome { status, level: 0, cause: 0, os_error: 0, offset, address, entry: 0 }
}

unsafe extern "C" fn attach(host: Grows<Host>) {
    HOST.store(host.ptr.cast_mut(), Relaxed);
}

unsafe extern "C" fn set_log_level(level: u32) {
    LEVEL.store(level, Relaxed);
}

/// Says something in the host's log.
fn log(message: &str) {
    // SAFETY: the ABI's contract: null before `attach`, and afterwards the host's offer, which stays.
    let Some(host) = (unsafe { HOST.load(Relaxed).as_ref() }) else { return };
    if LEVEL.load(Relaxed) < INFO {
        return;
    }
    let mut record = LogMessage::empty();
    record.level = INFO;
    record.target = text("older_rust");
    record.message = text(message);
    if let Some(log) = host.log {
        // SAFETY: the host's function takes a message that is whole for the call.
        unsafe { log(Grows::new(&record)) };
    }
}

/// Says why a call failed, and gives what it returns.
unsafe fn fail(sink: FailureSink, kind: u32, message: &str) -> i32 {
    let mut failure = Failure::empty();
    failure.kind = kind;
    failure.message = text(message);
    if let Some(set) = sink.set {
        // SAFETY: the ABI's contract: the sink can be called for the call.
        unsafe { set(sink.context, Grows::new(&failure)) };
    }
    -1
}

unsafe extern "C" fn open(request: Grows<ConnectorRequest>, out: *mut Memory, failure: FailureSink) -> i32 {
    // SAFETY: the ABI's contract: the request is there for the call, and of this version or a later one.
    let request = unsafe { &*request.ptr };
    let target = match request.target {
        Text { ptr, .. } if ptr.is_null() => &[][..],
        // SAFETY: the ABI's contract: the text is whole for the call.
        Text { ptr, len } => unsafe { slice::from_raw_parts(ptr, len) },
    };
    let target = String::from_utf8_lossy(target);
    log(&format!("opening {target}"));
    if target != "machine" {
        // SAFETY: the ABI's contract: the sink can be called.
        return unsafe { fail(failure, NOT_FOUND, "the only target is called machine") };
    }
    let OpenReport { context, note, .. } = request.report;
    if let Some(note) = note {
        // SAFETY: the ABI's contract: the report can be called for the call.
        unsafe { note(context, text("built against ABI 1.1")) };
    }
    let mut opened = Arc::new(Opened {
        name: format!("older {target}"),
        runs: RUNS,
        info: MemoryInfo::empty(),
        facts: Facts::empty(),
    });
    let own = Arc::get_mut(&mut opened).unwrap();
    own.info = MemoryInfo {
        name: text(&own.name),
        runs: own.runs.as_ptr(),
        run_count: own.runs.len(),
        liveness: FROZEN,
        read_only: 1,
        ..MemoryInfo::empty()
    };
    own.facts.machine = X86_64;
    let memory = Memory { context: Arc::into_raw(opened).cast_mut().cast(), table: Grows::new(&TABLE) };
    // SAFETY: the ABI's contract: `out` is the callee's to fill in.
    unsafe { out.write(memory) };
    0
}

unsafe extern "C" fn targets(sink: RecordSink, _: FailureSink) -> i32 {
    let mut record = TargetRecord::empty();
    record.name = text("machine");
    record.description = text("bytes that follow from their addresses");
    if let Some(item) = sink.item {
        // SAFETY: the ABI's contract: the sink can be called; the record is whole for the call.
        unsafe { item(sink.context, (&raw const record).cast::<Header>()) };
    }
    0
}

unsafe extern "C" fn clone(context: *mut c_void) -> *mut c_void {
    // SAFETY: the context is that of a living handle, so it came from `Arc::into_raw`.
    unsafe { Arc::increment_strong_count(context.cast::<Opened>()) };
    context
}

unsafe extern "C" fn drop_handle(context: *mut c_void) {
    // SAFETY: the handle is given up, and its context came from `Arc::into_raw`.
    drop(unsafe { Arc::from_raw(context.cast::<Opened>()) });
}

unsafe extern "C" fn read(_: *mut c_void, ops: *mut ReadOp, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: the ABI's contract: that many operations are the callee's for the call.
        let op = unsafe { &mut *ops.add(index) };
        op.outcome = outcome(DONE, 0, 0);
        for offset in 0..op.len {
            let address = op.address.wrapping_add(offset as u64);
            if !RUNS.iter().any(|run| (run.start..run.start + run.len).contains(&address)) {
                op.outcome = outcome(NOT_IN_IMAGE, offset as u64, address);
                break;
            }
            // SAFETY: the ABI's contract: the buffer is the callee's for the call.
            unsafe { op.buffer.add(offset).write(byte(address)) };
        }
    }
    0
}

unsafe extern "C" fn info(context: *mut c_void) -> Grows<MemoryInfo> {
    // SAFETY: the context is that of a living handle.
    Grows::new(&unsafe { &*context.cast::<Opened>() }.info)
}

unsafe extern "C" fn facts(context: *mut c_void) -> Grows<Facts> {
    // SAFETY: the context is that of a living handle.
    Grows::new(&unsafe { &*context.cast::<Opened>() }.facts)
}

/// As if the second run were all zeros: whoever asks can tell that the answer came from here.
unsafe extern "C" fn populated_runs(_: *mut c_void, sink: RunSink) {
    if let Some(run) = sink.run {
        // SAFETY: the ABI's contract: the sink can be called for the call.
        unsafe { run(sink.context, RUNS[0]) };
    }
}
