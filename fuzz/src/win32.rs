//! Targets for what a Windows kernel keeps in memory about itself, and for its file of symbols.
//!
//! Owns: nothing but the names. Must not know: formats.

use memflow_win32::fuzzing;

/// An image in memory: headers, CodeView record, exports, the block for debuggers in its data.
pub fn pe(data: &[u8]) {
    let _ = fuzzing::pe(data);
}

/// The block for debuggers, plain or encoded, of x64 and x86.
pub fn kdbg(data: &[u8]) {
    let _ = fuzzing::kdbg(data);
}

/// A file of symbols.
pub fn pdb(data: &[u8]) {
    let _ = fuzzing::pdb(data);
}
