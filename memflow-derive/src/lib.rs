//! Attributes that make a memflow plugin of one function.
//!
//! Owns: [`macro@connector`] and [`macro@os_layer`]: their syntax, and errors that stand where the mistake is.
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
