//! The targets that plugins can be built for, and the one of this build.
//!
//! Owns: [`HOST_TARGET`] and the table behind it. Must not know: file formats.
//! Keeps: a triple here is the one that rustc prints for such a target (a test asks it).
//! Source: the Rust reference, "Conditional compilation"; `rustc --print cfg --target TRIPLE`.

macro_rules! targets {
    ($($triple:literal $arch:literal $os:literal $env:literal $abi:literal;)*) => {
        $(
            /// The target triple of this build.
            ///
            /// Triples that differ only in what the compiler may use (`armv7-…` and `arm-…`, `i586-…` and `i686-…`) share one
            /// name here: their code can call each other.
            #[cfg(all(target_arch = $arch, target_os = $os, target_env = $env, target_abi = $abi))]
            pub const HOST_TARGET: &str = $triple;
        )*

        #[cfg(not(any($(
            all(target_arch = $arch, target_os = $os, target_env = $env, target_abi = $abi)
        ),*)))]
        compile_error!(
            "plugins are not known for this target: add it to the table in memflow-core/src/plugin/descriptor/target.rs, or turn \
             off the feature `inventory`"
        );

        /// Each target with rustc's words for its architecture and operating system.
        pub(crate) const TARGETS: &[Target] = &[$(Target { triple: $triple, arch: $arch, os: $os }),*];
    };
}

/// A target that plugins can be built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) triple: &'static str,
    /// `target_arch`.
    pub(crate) arch: &'static str,
    /// `target_os`.
    pub(crate) os: &'static str,
}

// triple, target_arch, target_os, target_env, target_abi
targets! {
    "x86_64-unknown-linux-gnu" "x86_64" "linux" "gnu" "";
    "x86_64-unknown-linux-musl" "x86_64" "linux" "musl" "";
    "i686-unknown-linux-gnu" "x86" "linux" "gnu" "";
    "i686-unknown-linux-musl" "x86" "linux" "musl" "";
    "aarch64-unknown-linux-gnu" "aarch64" "linux" "gnu" "";
    "aarch64-unknown-linux-musl" "aarch64" "linux" "musl" "";
    "arm-unknown-linux-gnueabi" "arm" "linux" "gnu" "eabi";
    "arm-unknown-linux-gnueabihf" "arm" "linux" "gnu" "eabihf";
    "arm-unknown-linux-musleabi" "arm" "linux" "musl" "eabi";
    "arm-unknown-linux-musleabihf" "arm" "linux" "musl" "eabihf";
    "riscv64gc-unknown-linux-gnu" "riscv64" "linux" "gnu" "";
    "riscv64gc-unknown-linux-musl" "riscv64" "linux" "musl" "";
    "loongarch64-unknown-linux-gnu" "loongarch64" "linux" "gnu" "";
    "loongarch64-unknown-linux-musl" "loongarch64" "linux" "musl" "";
    "powerpc64le-unknown-linux-gnu" "powerpc64" "linux" "gnu" "elfv2";
    "s390x-unknown-linux-gnu" "s390x" "linux" "gnu" "";
    "x86_64-linux-android" "x86_64" "android" "" "";
    "i686-linux-android" "x86" "android" "" "";
    "aarch64-linux-android" "aarch64" "android" "" "";
    "armv7-linux-androideabi" "arm" "android" "" "eabi";
    "x86_64-unknown-freebsd" "x86_64" "freebsd" "" "";
    "aarch64-unknown-freebsd" "aarch64" "freebsd" "" "";
    "x86_64-pc-windows-msvc" "x86_64" "windows" "msvc" "";
    "i686-pc-windows-msvc" "x86" "windows" "msvc" "";
    "aarch64-pc-windows-msvc" "aarch64" "windows" "msvc" "";
    "x86_64-pc-windows-gnu" "x86_64" "windows" "gnu" "";
    "i686-pc-windows-gnu" "x86" "windows" "gnu" "";
    "x86_64-pc-windows-gnullvm" "x86_64" "windows" "gnu" "llvm";
    "aarch64-pc-windows-gnullvm" "aarch64" "windows" "gnu" "llvm";
    "x86_64-apple-darwin" "x86_64" "macos" "" "";
    "aarch64-apple-darwin" "aarch64" "macos" "" "";
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn rustc(args: &[&str]) -> String {
        let output = Command::new("rustc").args(args).output().unwrap();
        assert!(output.status.success(), "rustc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn value<'a>(cfg: &'a str, key: &str) -> &'a str {
        let line = cfg.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix("=\""));
        line.and_then(|line| line.strip_suffix('"')).unwrap_or_default()
    }

    #[test]
    fn triple_of_this_build_is_the_compilers() {
        let version = rustc(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        assert_eq!(HOST_TARGET, host);
    }

    #[test]
    fn table_agrees_with_the_compiler() {
        let mut seen = Vec::new();
        for target in TARGETS {
            let cfg = rustc(&["--print", "cfg", "--target", target.triple]);
            assert_eq!((target.arch, target.os), (value(&cfg, "target_arch"), value(&cfg, "target_os")), "{target:?}");
            let key = ["target_arch", "target_os", "target_env", "target_abi"].map(|key| value(&cfg, key).to_owned());
            assert!(!seen.contains(&key), "{target:?} cannot be told from another");
            seen.push(key);
        }
    }
}
