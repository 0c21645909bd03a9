//! What the attributes make, linked in and as a shared library.
//!
//! Owns: the fields of descriptors, and that the file is one that memflow takes. Must not know: how a file is loaded.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{fs, path::Path, process::Command};

use memflow_core::plugin::{
    self, Connector, OsLayer,
    analyze::{HostAbi, analyze},
    args::{ArgKind, ArgSpec},
    descriptor::{Accepts, Descriptor, HOST_TARGET, PluginKind},
};

#[path = "../examples/plugin.rs"]
mod example;

fn descriptor(section: &[u8]) -> Descriptor {
    let plugins = Descriptor::parse_section(section).unwrap();
    let [Ok(plugin)] = &plugins[..] else { panic!("{plugins:?}") };
    plugin.clone()
}

#[test]
fn connector_is_described_by_attribute_and_comment() {
    let plugin = descriptor(example::AllZero::DESCRIPTOR);
    assert_eq!(plugin.kind, PluginKind::Connector);
    assert_eq!((plugin.name.as_str(), plugin.entry.as_str()), ("all-zero", "memflow_plugin_all_zero"));
    assert_eq!(plugin.version.to_string(), env!("CARGO_PKG_VERSION"));
    assert_eq!((plugin.abi, plugin.target.as_str()), (plugin::ABI, HOST_TARGET));
    assert_eq!(plugin.description, "Memory that holds nothing but zeros.");
    assert_eq!(plugin.help, "The size is an argument.\n\nSo is the rest.");
    assert_eq!(plugin.accepts, [Accepts::Content, Accepts::Os]);
    assert_eq!(plugin.layout.as_deref(), Some("abi_stable 0.11"));
}

#[test]
fn arguments_are_read_back_as_written() {
    let plugin = descriptor(example::AllZero::DESCRIPTOR);
    let args: Vec<ArgSpec> = plugin.args.iter().map(|line| line.parse().unwrap()).collect();
    let expected = [
        ArgSpec::new("size", ArgKind::Size).default("16MiB").help("how much: in bytes"),
        ArgSpec::new("layout", ArgKind::choice(["auto", "flat", "e820-2"])).default("auto"),
        ArgSpec::new("separator", ArgKind::Text).default(r"a:b\c"),
        ArgSpec::new("path", ArgKind::Path).required().help("where"),
        ArgSpec::new("count", ArgKind::Number).default("0x10"),
        ArgSpec::new("time-out", ArgKind::Time).default("5s").help("how long"),
        ArgSpec::new("partial", ArgKind::Flag).help("open what is there"),
    ];
    assert_eq!(args, expected);
}

#[test]
fn os_layer_is_described_by_its_options() {
    let plugin = descriptor(example::Nothing::DESCRIPTOR);
    assert_eq!(plugin.kind, PluginKind::Os);
    assert_eq!((plugin.name.as_str(), plugin.entry.as_str()), ("nothing", "memflow_plugin_nothing"));
    assert_eq!((plugin.description.as_str(), plugin.help.as_str()), ("recognises nothing", "one\ntwo"));
    assert!(plugin.accepts.is_empty() && plugin.args.is_empty());
}

#[test]
fn functions_are_behind_the_type() {
    const { assert!(example::AllZero::LISTS_TARGETS) };
    let targets = example::AllZero::targets().unwrap();
    assert_eq!(targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(), ["zero"]);
    let args = plugin::args::Args::new().with("size", "4KiB");
    let connection = example::AllZero::open(&plugin::ConnectorRequest::new(None, &args)).unwrap();
    let request = plugin::OsRequest::new(connection.memory, &args);
    assert!(matches!(example::Nothing::open(request), Err(memflow_core::Error::Cancelled)));
}

#[test]
fn shared_library_is_taken() {
    // The tests' own folder for scratch files is in the target folder, where the library's dependencies are built already.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--offline", "--package", "memflow-derive", "--example", "plugin", "--target-dir"])
        .arg(target);
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let name = format!("{}plugin{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let bytes = fs::read(target.join("debug/examples").join(name)).unwrap();
    let file = analyze(&bytes, &HostAbi::this_build(plugin::ABI)).unwrap();
    let mut plugins: Vec<Descriptor> = file.plugins.into_iter().map(Result::unwrap).collect();
    plugins.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(plugins, [descriptor(example::AllZero::DESCRIPTOR), descriptor(example::Nothing::DESCRIPTOR)]);
}
