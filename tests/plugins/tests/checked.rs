//! Plugins are loaded, used from four threads and dropped under valgrind: no byte is read that is not there or not written to, and
//! none is lost.

mod common;

use std::{fs, path::Path, process::Command};

#[test]
fn loading_use_from_four_threads_and_dropping_are_clean_under_valgrind() {
    memflow_guests::require("valgrind", "valgrind").unwrap();
    let folder =
        common::build(&["-p", "memflow-snapshot", "-p", "memflow-linux", "-p", "memflow-test-plugins", "--lib"]);
    common::build(&["-p", "memflow-test-plugins", "--example", "use_plugins"]);
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let image = scratch.join("checked-image");
    fs::write(&image, vec![0x33; 0x8000]).unwrap();
    let image = image.display();
    let in_c =
        common::compile(&common::root().join("examples/c-connector/raw_file.c"), "craw.so", &["-shared", "-fPIC"]);

    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite,indirect"]);
    // What a panic throws and cannot be dropped is left where it is.
    valgrind.args(["--errors-for-leak-kinds=definite,indirect", "--fair-sched=yes"]);
    valgrind.arg(folder.join("examples/use_plugins"));
    valgrind.args(["libmemflow_snapshot.so", "libmemflow_linux.so", "libmisbehaving.so"].map(|name| folder.join(name)));
    valgrind.arg(in_c);
    for (target, layer) in [
        (format!("snapshot:{}", common::root().join("memflow-cli/demo/demo.elf.zst").display()), "linux"),
        (format!("snapshot:{image}:layout=flat"), "-"),
        (format!("craw:{image}:base=0x1000"), "-"),
        (format!("craw:{image}"), "faulty-os"),
        ("faulty".to_owned(), "faulty-os"),
        ("faulty::fault=panic,at=memory.read".to_owned(), "-"),
        ("faulty::fault=payload,at=memory.drop".to_owned(), "-"),
        ("faulty".to_owned(), "faulty-os:fault=panic,at=view.read"),
        ("faulty".to_owned(), "faulty-os:fault=panic,at=soft_faults.resolve"),
        ("faulty".to_owned(), "faulty-os:fault=panic,at=process.drop"),
    ] {
        valgrind.args([&target, layer]);
    }
    common::run(&mut valgrind, "valgrind");
}
