//! The `memflow` command from outside: arguments in; text, JSON and exit code out.
//!
//! Must not know: anything of the library; what is expected comes from the demo guest's own /proc and from files made here.

mod bad_input;
mod c_connector;
mod cache;
mod chains;
mod control;
mod convert;
mod demo;
mod diff;
mod document;
mod dump;
mod find;
mod help;
mod info;
mod install;
mod names;
mod plugins;
mod readme;
mod targets;
mod util;
mod windows;
