//! The plugin that a name means.
//!
//! Must not know: files.

use std::{cmp::Reverse, sync::Arc};

use semver::VersionReq;

use super::{Inventory, Origin, Plugin};
use crate::{
    error::{Error, Result},
    plugin::descriptor::PluginKind,
};

/// Plugins by kind and name; those of one name in the order of preference.
pub(super) fn ordered(plugins: Vec<Plugin>) -> Vec<Arc<Plugin>> {
    let mut plugins: Vec<Arc<Plugin>> = plugins.into_iter().map(Arc::new).collect();
    // Stable, so that folders keep their order.
    plugins.sort_by(|one, other| key(one).cmp(&key(other)));
    plugins
}

fn key(plugin: &Plugin) -> (PluginKind, &str, bool, Reverse<&semver::Version>, u8) {
    let descriptor = plugin.descriptor();
    let named = matches!(plugin.origin(), Origin::Named(_));
    let rank = match plugin.origin() {
        Origin::Named(_) => 0,
        Origin::Environment(_) => 1,
        Origin::BuiltIn => 2,
        Origin::Folder(_) => 3,
    };
    (descriptor.kind, &descriptor.name, !named, Reverse(&descriptor.version), rank)
}

/// The first plugin of that kind, name and version.
pub(super) fn find<'a>(
    inventory: &'a Inventory,
    kind: PluginKind,
    name: &str,
    version: Option<&str>,
) -> Result<&'a Arc<Plugin>> {
    let wanted = match version {
        None => VersionReq::STAR,
        Some(version) => VersionReq::parse(&format!("={version}")).map_err(|error| Error::Argument {
            what: format!("version of plugin {name}").into(),
            expected: format!("1, 1.2 or 1.2.3 ({error})").into(),
            found: version.to_owned(),
        })?,
    };
    let of_kind = || inventory.plugins().iter().filter(move |plugin| plugin.descriptor().kind == kind);
    let fits = |plugin: &&Arc<Plugin>| {
        let descriptor = plugin.descriptor();
        // A version that is asked for by its whole name may be a preview; others are not given unasked.
        let exact = version.is_some_and(|version| version == descriptor.version.to_string());
        descriptor.name == name && (version.is_none() || exact || wanted.matches(&descriptor.version))
    };
    if let Some(plugin) = of_kind().find(fits) {
        return Ok(plugin);
    }
    let there: Vec<String> =
        of_kind().map(|plugin| format!("{}@{}", plugin.descriptor().name, plugin.descriptor().version)).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    let rejected = match inventory.rejected().len() {
        0 => String::new(),
        1 => "; 1 file was rejected, `memflow plugins doctor` says why".to_owned(),
        count => format!("; {count} files were rejected, `memflow plugins doctor` says why"),
    };
    let asked = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
    Err(Error::Unsupported {
        what: format!("{kind} {asked}"),
        why: format!("there is no such plugin; there are: {there}{rejected}"),
    })
}
