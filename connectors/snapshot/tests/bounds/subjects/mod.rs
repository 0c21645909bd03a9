//! A small, whole file of each format that is made to suffer.
//!
//! A format that is read has a line in one of these tables; the files are written by the builders of `common`, without any code of the crate.

mod compressed;
mod formats;
mod machines;
mod subject;

pub(crate) use self::{
    compressed::{compressed, kdumps},
    formats::{avml_range, crash_dumps, plain, vmware},
    machines::{beside, cores, migrations},
    subject::{Subject, WINDOW},
};
