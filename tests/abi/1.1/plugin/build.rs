//! Hands the target triple to the descriptor.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=PLUGIN_TARGET={}", std::env::var("TARGET").unwrap());
}
