//! Attributes that make a memflow plugin of one function, and read a structure of which only some members are wanted.
//!
//! Owns: [`macro@connector`], [`macro@os_layer`] and [`macro@Batcher`]: their syntax, and errors that stand where the mistake is.
//! Must not know: what a plugin does.
//! Keeps: what is accepted here is a descriptor that memflow accepts; a mistake is an error of the compiler, never a panic.
//!
//! The attribute leaves the function as it is and adds a type (`Plugin`, unless `type` says otherwise) that implements `Connector` or
//! `OsLayer` of `memflow_core::plugin`, and the two things that a shared library needs to be found and loaded: the descriptor in its
//! section, and the entry table. With `crate-type = ["cdylib"]` the package is a plugin; linked into a program, the type is one.
//! The package depends on `memflow-core`. Its version is the plugin's. A package may hold several plugins: each has a name of its own,
//! and those in one module a `type` of their own.
//!
//! # Options
//!
//! | option | |
//! |---|---|
//! | `name = "snapshot"` | what the plugin is asked for by: at most 32 of a-z, 0-9, `_` and `-`; must be there |
//! | `description = "..."` | one line; without it, the first paragraph of the function's doc comment |
//! | `help = "..."` | any number of lines; without it, the rest of the doc comment |
//! | `type = Snapshot` | the name of the type to make |
//! | `args(...)` | the arguments that the plugin takes |
//! | `accepts(content, os)` | connectors: takes the target as bytes; looks for it in an operating system that was found before |
//! | `targets = list` | connectors: a `fn() -> Result<Vec<TargetInfo>>` that lists what could be opened |
//!
//! # Arguments
//!
//! ```text
//! args(
//!     path: path required => "where the table is",
//!     layout: choice(auto | flat | "e820-2") = "auto" => "which addresses a raw image holds",
//!     cache: size = "16MiB",
//!     partial: flag => "open what is there",
//! )
//! ```
//!
//! First the name, in quotes if it has a `-`. Kinds are `text`, `path`, `flag`, `number`, `size`, `time` and `choice(a | b)`. The
//! default is a text in quotes, a number, `true` or `false`, and must be of the kind. What follows `=>` is shown as the argument's help.

mod argument;
mod batcher;
mod expand;
mod function;
mod options;
mod problems;
mod value;

use proc_macro::TokenStream;

use self::expand::{PluginKind, expand};

/// Makes a connector of a function `fn(&ConnectorRequest<'_>) -> Result<Connection>`.
///
/// In place of `Connection` it may return any `PhysicalMemory`. The [crate's documentation](crate) has the options.
///
/// ```
/// use memflow_core::{
///     Result,
///     plugin::{Connection, Connector, ConnectorRequest},
/// };
///
/// /// A machine that is always off.
/// #[memflow_derive::connector(name = "off", args(patience: time = "5s" => "how long to wait for it"))]
/// fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
///     let patience = request.args.time("patience")?;
///     request.step("waiting", 0, patience.map_or(5, |time| time.as_secs()))?;
///     Err(memflow_core::Error::Cancelled)
/// }
///
/// assert!(!Plugin::DESCRIPTOR.is_empty());
/// ```
#[proc_macro_attribute]
pub fn connector(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(PluginKind::Connector, options.into(), item.into()).into()
}

/// Makes an OS layer of a function `fn(OsRequest<'_>) -> Result<T>`, where `T` is an `Os` or `Arc<dyn Os>`.
///
/// The [crate's documentation](crate) has the options.
#[proc_macro_attribute]
pub fn os_layer(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(PluginKind::Os, options.into(), item.into()).into()
}

/// Makes a structure one whose members are read, or written, in one batch.
///
/// For structures of which few members are wanted, at places that the compiler need not know: each member that has `#[batch(offset = …)]`
/// lies so many bytes from the structure's start. The offset is any `u64` expression. Members without the attribute are left as they are.
///
/// | member | |
/// |---|---|
/// | `#[batch(offset = 0x10)] pid: u32` | a value, or an array of values: any `Pod` |
/// | `#[batch(offset = 0x20, nested)] inner: Inner` | a structure that is a `Batcher` itself |
/// | `#[batch(offset = 0x40, nested, stride = 0x18)] all: [Inner; 4]` | several of them, so many bytes from each other; also a `Vec` of the wanted length |
///
/// ```
/// # use std::sync::Arc;
/// # use memflow_core::{memory::*, view::{Batcher as _, PhysicalView}, *};
/// # let config = SourceConfig { name: "example".into(), runs: RunMap::flat(0x2000), facts: TargetFacts::default() };
/// # let mut bytes = vec![0; 0x2000];
/// # (bytes[0x108], bytes[0x1120]) = (7, 9);
/// # let view = PhysicalView::new(Arc::new(BufferMemory::new(config, bytes)?));
/// #[derive(Default, memflow_derive::Batcher)]
/// struct Task {
///     #[batch(offset = 0x8)]
///     pid: u32,
///     #[batch(offset = 0x1020)]
///     name: [u8; 16],
///     seen: bool,
/// }
///
/// let mut task = Task { seen: true, ..Task::default() };
/// task.read_members(&view, VirtAddr::new(0x100))?;
/// assert_eq!((task.pid, task.name[0], task.seen), (7, 9, true));
/// # Ok::<(), Error>(())
/// ```
#[proc_macro_derive(Batcher, attributes(batch))]
pub fn batcher(item: TokenStream) -> TokenStream {
    batcher::expand(item.into()).into()
}
