//! Images of Windows (Portable Executable) as they lie in memory: headers, sections, CodeView, exports, imports, version.
//!
//! Must not know: kernels, processes, whose image it is.
//! Source: Microsoft, "PE Format"; the layout of CodeView records as in LLVM's `llvm/DebugInfo/CodeView`.

mod codeview;
mod exports;
mod headers;
mod imports;
mod resources;

pub use self::{codeview::CodeView, headers::Section, imports::Import, resources::VersionInfo};
pub(crate) use self::{
    exports::{Export, Exports},
    headers::Image,
    imports::imports,
};
