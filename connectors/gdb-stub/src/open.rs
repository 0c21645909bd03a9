//! From an address to the memory behind the stub that listens there.
//!
//! Owns: [`open`] and its options; which source says where memory is. Must not know: packets.
//! Keeps: without a source that says which addresses are memory, none is read: devices may change when they are read.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use std::time::Duration;

use memflow_core::{
    Error, Result,
    error::ResultExt,
    memory::{TargetFacts, VcpuRegisters},
};

use crate::{
    address::Address,
    description::Description,
    handshake::{Abilities, shake},
    layout::Layout,
    link::Link,
    memory::GdbMemory,
    registers,
    session::{Request, Session},
    transfer,
};

/// When the target runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Runs {
    /// Between batches, and after we leave. One that stood before we came stays as it was.
    #[default]
    Between,
    /// After we leave: all that is read is of one moment.
    After,
    /// Not because of us.
    Never,
}

/// Whether the stub's addresses are physical.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Physical {
    /// It is switched to physical addresses, and refused when it has no such switch.
    #[default]
    Switch,
    /// They are, says who asks.
    Assume,
}

/// How to open a stub.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Longest wait for the connection, and for each answer.
    pub timeout: Duration,
    /// When the target runs.
    pub run: Runs,
    /// Whether the stub's addresses are physical.
    pub physical: Physical,
    /// Which addresses are memory, `FIRST-LAST,…`; else the stub is asked.
    pub map: Option<String>,
    /// Bytes of memory from address zero on; else the stub is asked.
    pub size: Option<u64>,
    /// Requests on the way at once, with a stub other than QEMU's that does without acknowledgements; else 64.
    pub ahead: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            run: Runs::default(),
            physical: Physical::default(),
            map: None,
            size: None,
            ahead: None,
        }
    }
}

/// An opened stub.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The memory, and control over the target.
    pub memory: GdbMemory,
    /// What it is, in a few words.
    pub format: String,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Connects to a stub and opens the memory behind it. The target is let go as the options say when the memory is dropped.
///
/// # Errors
/// [`Error::Io`] when nobody listens, answers in time, or answers as a stub does; [`Error::Unsupported`] when its addresses are not
/// known to be physical, or nothing says which are memory; [`Error::Argument`] for a map that is none.
pub fn open(address: &Address, options: &Options) -> Result<Opened> {
    let mut notes = Vec::new();
    let given = given(options)?;
    let link = Link::connect(address, options.timeout)?;
    let (mut session, abilities) = shake(link, options)?;
    let description = describe(&mut session, abilities, &mut notes)?;
    let mut facts = TargetFacts::default();
    facts.machine = registers::machine(&description);
    facts.vcpus = registers::read(&mut session, &description).context(|| "registers of the vCPUs".into())?;
    let layout = match given {
        Some(layout) => layout,
        None => layout(&mut session, abilities, &mut notes)?,
    };
    if session.is_qemu() && !session.may_run() && options.run != Runs::Never {
        notes.push("the guest stood before memflow connected, and stays so".to_owned());
    }
    let format = format!(
        "{} for {}",
        if session.is_qemu() { "QEMU GDB stub" } else { "GDB stub" },
        description.architecture.as_deref().unwrap_or("an unknown machine").escape_debug(),
    );
    Ok(Opened { memory: GdbMemory::new(session, layout, description, facts, abilities), format, notes })
}

/// Connects to a stub, reads the registers of each vCPU, and leaves; of [`Options`], `map` and `size` don't matter. A target that
/// ran runs on. One of another architecture than those that are known here has none.
///
/// # Errors
/// As [`open`]; [`Error::Unsupported`] also when the stub does not describe its target, as nothing says then which register is which.
pub fn vcpus(address: &Address, options: &Options) -> Result<Vec<VcpuRegisters>> {
    let link = Link::connect(address, options.timeout)?;
    let (mut session, abilities) = shake(link, options)?;
    let mut notes = Vec::new();
    let description = describe(&mut session, abilities, &mut notes)?;
    if !notes.is_empty() {
        return Err(Error::Unsupported { what: session.name().to_owned(), why: notes.join("; ") });
    }
    registers::read(&mut session, &description).context(|| "registers of the vCPUs".into())
}

/// The layout that the options name.
fn given(options: &Options) -> Result<Option<Layout>> {
    match (&options.map, options.size) {
        (Some(map), None) => Layout::given(map).map(Some),
        (None, Some(size)) if size > 0 => Ok(Some(Layout::flat(size))),
        (None, None) => Ok(None),
        _ => Err(Error::Argument {
            what: "map, size".into(),
            expected: "one of them, and a size above zero".into(),
            found: format!("{options:?}"),
        }),
    }
}

/// What the stub says of its target.
fn describe(session: &mut Session, abilities: Abilities, notes: &mut Vec<String>) -> Result<Description> {
    if !abilities.features {
        notes.push("the stub does not describe its target: nothing is known of its registers".to_owned());
        return Ok(Description::default());
    }
    let read = Description::read(|name| transfer::read(session, "features", name, abilities.packet))?;
    Ok(read.unwrap_or_else(|problem| {
        notes.push(format!("the stub's description of its target is not used: {problem}"));
        Description::default()
    }))
}

/// Which addresses are memory, from the first source that says so.
fn layout(session: &mut Session, abilities: Abilities, notes: &mut Vec<String>) -> Result<Layout> {
    let mut problems = Vec::new();
    if abilities.memory_map {
        match transfer::read(session, "memory-map", "", abilities.packet)? {
            Some(text) => match Layout::from_memory_map(&text) {
                Ok(layout) => return Ok(layout),
                Err(problem) => problems.push(format!("its memory map has {problem}")),
            },
            None => problems.push("it gives no memory map".to_owned()),
        }
    }
    if session.is_qemu() {
        let text = session.ask_one(Request::command("info mtree -f"))?;
        match Layout::from_mtree(&String::from_utf8_lossy(&text)) {
            Ok(layout) => {
                notes.extend(problems);
                return Ok(layout);
            }
            Err(problem) => problems.push(format!("what its monitor says to `info mtree -f` has {problem}")),
        }
    }
    let why = if problems.is_empty() { "it has no memory map".to_owned() } else { problems.join("; ") };
    Err(Error::Unsupported {
        what: format!("{} without a list of its memory", session.name()),
        why: format!("{why}; name the addresses with `map=FIRST-LAST,…` or `size=SIZE`"),
    })
}
