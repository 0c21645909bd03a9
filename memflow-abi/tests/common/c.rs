//! Compilers for C and C++, and the program that prints the record as they see it.
//!
//! Owns: how they are called. Must not know: which header they are given.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::Record;

pub(crate) const C: &[&str] = &["cc", "-std=c11", "-xc"];
pub(crate) const CPP: &[&str] = &["c++", "-std=c++17", "-xc++"];

/// The folder of the header.
pub(crate) fn include() -> PathBuf {
    super::path("include")
}

/// Runs a command to its end, whatever that is.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!(
            "{:?} cannot be started: {error}; compilers for C and C++ are needed: apt install gcc g++",
            command.get_program()
        )
    })
}

/// Runs a command and returns what it prints.
pub(crate) fn run(command: &mut Command) -> String {
    let output = output(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Where a file of a test goes: `name` for that compiler.
fn temporary(compiler: &[&str], name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", compiler[0].replace('+', "p")))
}

/// Where what a program is compiled to goes.
pub(crate) fn object(compiler: &[&str], name: &str) -> PathBuf {
    temporary(compiler, name).with_extension("o")
}

/// Writes the text of a program, and gives the call of a compiler for it.
pub(crate) fn compiler(compiler: &[&str], include: &Path, name: &str, program: &str) -> Command {
    let source = temporary(compiler, name).with_extension("txt");
    fs::write(&source, program).unwrap();
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"]).arg(include).arg(source);
    command
}

/// Compiles a program against a header and returns what it prints.
pub(crate) fn printed(language: &[&str], include: &Path, name: &str, program: &str) -> String {
    let binary = temporary(language, name);
    run(compiler(language, include, name, program).arg("-o").arg(&binary));
    run(&mut Command::new(binary)).replace("\r\n", "\n")
}

/// A program that prints a record as a header has it. Names are the record's; sizes, offsets and values are the compiler's.
pub(crate) fn program(record: &Record) -> String {
    let mut text = String::from(
        "#include <stdio.h>\n#include \"memflow_plugin.h\"\n#if defined(__cplusplus)\n#define ALIGN(type) alignof(type)\n#else\n\
         #define ALIGN(type) _Alignof(type)\n#endif\nint main(void) {\n\
         printf(\"abi %d.%d\\n\", MEMFLOW_MAJOR, MEMFLOW_MINOR);\n",
    );
    for structure in &record.structures {
        let name = &structure.name;
        let kind = structure.kind();
        writeln!(
            text,
            "printf(\"\\n{kind} {name} size %zu align %zu\\n\", sizeof(memflow_{name}), ALIGN(memflow_{name}));"
        )
        .unwrap();
        for field in &structure.fields {
            let field = &field.name;
            writeln!(
                text,
                "printf(\"  {field} offset %zu size %zu\\n\", offsetof(memflow_{name}, {field}), \
                 sizeof(((memflow_{name} *)0)->{field}));"
            )
            .unwrap();
        }
    }
    for numbers in &record.numbers {
        let first = numbers.values.first().map(|(name, _)| constant(&numbers.name, name)).unwrap();
        writeln!(text, "printf(\"\\nnumbers {} size %zu\\n\", sizeof({first}));", numbers.name).unwrap();
        for (name, _) in &numbers.values {
            let constant = constant(&numbers.name, name);
            writeln!(text, "printf(\"  {name} %llu\\n\", (unsigned long long){constant});").unwrap();
        }
    }
    text + "return 0;\n}\n"
}

fn constant(numbers: &str, name: &str) -> String {
    format!("MEMFLOW_{}_{name}", numbers.to_uppercase())
}
