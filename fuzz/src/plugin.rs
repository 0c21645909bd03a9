//! Targets for files that may be plugins.
//!
//! Owns: what must be true of a plugin that was taken. Must not know: file formats.

use std::fmt::Display;

use memflow_core::plugin::{
    analyze::{HostAbi, analyze as analyze_file},
    descriptor::{AbiVersion, Descriptor},
};

/// Hosts for which some seed holds a plugin.
const TARGETS: [&str; 6] = [
    "x86_64-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
    "i686-unknown-linux-gnu",
    "x86_64-pc-windows-gnu",
    "i686-pc-windows-gnu",
    "x86_64-apple-darwin",
];
/// Longest text of an error, in bytes.
const MAX_ERROR: usize = 4 << 10;

/// Shared objects.
pub fn analyze(data: &[u8]) {
    for target in TARGETS {
        let host = HostAbi { version: AbiVersion::new(1, 1), target };
        let file = match analyze_file(data, &host) {
            Ok(file) => file,
            Err(rejection) => {
                assert_readable(&rejection);
                continue;
            }
        };
        assert!(!file.plugins.is_empty(), "a file without a plugin is a rejection");
        for plugin in file.plugins {
            match plugin {
                Ok(plugin) => {
                    assert!(host.version.accepts(plugin.abi) && plugin.target == target);
                    assert_from(&plugin, data);
                }
                Err(rejected) => assert_readable(&rejected),
            }
        }
    }
}

/// Descriptors as they lie in a section.
pub fn descriptor(data: &[u8]) {
    let plugins = match Descriptor::parse_section(data) {
        Ok(plugins) => plugins,
        Err(error) => return assert_readable(&error),
    };
    for plugin in plugins {
        match plugin {
            Ok(plugin) => {
                assert_from(&plugin, data);
                let again = Descriptor::parse_section(&written(&plugin));
                assert!(
                    matches!(&again.as_deref(), Ok([Ok(again)]) if *again == plugin),
                    "{plugin:?} became {again:?}"
                );
            }
            Err(bad) => assert_readable(&bad),
        }
    }
}

/// Each text of a descriptor stands in the bytes.
fn assert_from(plugin: &Descriptor, data: &[u8]) {
    let texts = [&plugin.name, &plugin.target, &plugin.entry, &plugin.description, &plugin.help];
    for text in texts.into_iter().chain(&plugin.args).filter(|text| !text.is_empty()) {
        let found = data.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(found, "{text:?} is not in the bytes");
    }
}

/// A section with this descriptor.
fn written(plugin: &Descriptor) -> Vec<u8> {
    let mut out = b"memflow_plugin=1\0".to_vec();
    let mut put = |key: &str, value: &dyn Display| out.extend(format!("{key}={value}\0").bytes());
    put("kind", &plugin.kind.as_str());
    put("name", &plugin.name);
    put("version", &plugin.version);
    put("abi", &plugin.abi);
    put("target", &plugin.target);
    put("entry", &plugin.entry);
    put("description", &plugin.description);
    plugin.accepts.iter().for_each(|accepts| put("accepts", accepts));
    plugin.args.iter().for_each(|arg| put("arg", arg));
    plugin.layout.iter().for_each(|layout| put("layout", layout));
    put("help", &plugin.help);
    out
}

/// A reason can be shown to a person, as it is.
fn assert_readable(reason: &dyn Display) {
    let text = reason.to_string();
    assert!(!text.is_empty() && text.len() <= MAX_ERROR && !text.contains(char::is_control), "{text:?}");
}
