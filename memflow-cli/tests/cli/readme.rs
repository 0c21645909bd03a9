//! The documents that show how to use memflow: everything in them is run. `UPDATE_README=1` writes what is printed anew.

use std::{fs, path::Path};

use super::document::{Place, check, checkout};

#[test]
fn sessions_of_the_readme_are_real() {
    let folder = tempfile::tempdir().unwrap();
    assert!(check("README.md", &mut Place::new(folder.path())) > 8);
}

/// The plugins of the document are compiled with all that they need; the first time takes a while.
#[test]
fn writing_a_plugin_works_as_written() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("writing-a-plugin");
    let home = folder.join("home");
    if home.exists() {
        fs::remove_dir_all(&home).unwrap();
    }
    fs::create_dir_all(&home).unwrap();
    // A workspace of its own, as the folder lies in that of the checkout; its versions, so that nothing is downloaded.
    fs::write(home.join("Cargo.toml"), "[workspace]\nresolver = \"3\"\n").unwrap();
    fs::copy(checkout().join("Cargo.lock"), home.join("Cargo.lock")).unwrap();
    let mut place = Place::new(&home);
    // What a user has without saying so: a folder `target` in each package. What is compiled stays from one run to the next.
    place.set("CARGO_TARGET_DIR", "target");
    place.set("CARGO_BUILD_BUILD_DIR", folder.join("build"));
    place.set("CARGO_NET_OFFLINE", "true");
    place.set("CARGO_INCREMENTAL", "0");
    place.set("CARGO_PROFILE_DEV_DEBUG", "0");
    assert!(check("docs/writing-a-plugin.md", &mut place) > 10);
}
