//! What a plugin's file holds for its host: the descriptor in its section, and the entry as a symbol.
//!
//! Must not know: what the plugin does.

use memflow_abi::{PluginEntry, Text};

/// Puts a plugin into the file that is compiled: `export_plugin!(memflow_plugin_NAME, connector Type)`, or `os_layer Type`.
///
/// The symbol is the one that the descriptor names as `entry`.
#[macro_export]
macro_rules! export_plugin {
    ($symbol:ident, $kind:ident $plugin:ty) => {
        const _: () = {
            const DESCRIPTOR: &[u8] = $crate::plugin::export::descriptor::$kind::<$plugin>();

            #[used]
            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__memflow"))]
            #[cfg_attr(windows, unsafe(link_section = ".memflow"))]
            #[cfg_attr(not(any(windows, target_vendor = "apple")), unsafe(link_section = "memflow_plugin"))]
            static SECTION: [u8; DESCRIPTOR.len()] = $crate::plugin::export::section(DESCRIPTOR);

            /// The entry of this plugin.
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            pub static $symbol: $crate::plugin::export::PluginEntry =
                $crate::plugin::export::entry_with($crate::plugin::export::$kind::<$plugin>(), &SECTION);
        };
    };
}

/// The descriptor of a definition, by its kind.
#[doc(hidden)]
pub mod descriptor {
    use crate::plugin::definition::{Connector, OsLayer};

    pub const fn connector<C: Connector>() -> &'static [u8] {
        C::DESCRIPTOR
    }

    pub const fn os_layer<O: OsLayer>() -> &'static [u8] {
        O::DESCRIPTOR
    }
}

/// The entry with its descriptor where the section has it: an entry that is exported keeps the section in the file.
#[doc(hidden)]
pub const fn entry_with(mut entry: PluginEntry, section: &'static [u8]) -> PluginEntry {
    entry.descriptor = Text::bytes(section);
    entry
}

/// A descriptor as the bytes of a section.
#[doc(hidden)]
pub const fn section<const N: usize>(descriptor: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut index = 0;
    while index < N {
        bytes[index] = descriptor[index];
        index += 1;
    }
    bytes
}
