//! `cargo xtask tidy`: rules of the project that no other tool checks.
//!
//! Owns: the rules, each a function from a file's text to what is wrong with it. Must not know: what the code does.
//! Keeps: a finding names file and line; a rule has a test that shows what it catches and what it lets pass.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The folders of the library, in the order in which data flows: each knows only what stands before it.
const FOLDER_ORDER: &[&[&str]] =
    &[&["address", "error", "units"], &["memory"], &["paging"], &["view"], &["scan"], &["os"], &["plugin"]];
/// Modules of the library that stand beside the order: they exist for tests and may know everything.
const BESIDE: &[&str] = &["testkit"];
/// Where the library's folders are.
const LIBRARY: &str = "memflow-core/src/";
/// The connectors.
const CONNECTORS: &[&str] =
    &["memflow-gdb", "memflow-kcore", "memflow-pcileech", "memflow-process", "memflow-qemu", "memflow-snapshot"];
/// Crates that must not know each other: packages in the folder on the left do not name those on the right.
const FOREIGN_CRATES: &[(&str, &[&str])] = &[
    ("memflow-core/", CONNECTORS),
    ("memflow-core/", &["memflow-linux", "memflow-win32", "memflow-cli"]),
    ("connectors/", &["memflow-linux", "memflow-win32", "memflow-cli"]),
    ("os/", CONNECTORS),
    ("os/", &["memflow-cli"]),
    // It judges the layers: what it builds must not be understood by the code that built it.
    ("tests/windows/", &["memflow-core", "memflow-linux", "memflow-win32", "memflow-cli"]),
];
/// The document that lists the files which may hold unsafe code, between these two lines.
const UNSAFE_LIST: &str = "docs/design.md";
const UNSAFE_BEGIN: &str = "<!-- tidy reads from here -->";
const UNSAFE_END: &str = "<!-- tidy reads to here -->";
/// Words that mark unfinished work; in two halves, so that this file does not hold them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
/// Folders of somebody's machine.
const PRIVATE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
/// Hosts that tracked files may name. A host that is not here is a mirror, or belongs here.
const HOSTS: &[&str] = &[
    "docs.kernel.org",
    "docs.rs",
    "git.kernel.org",
    "github.com",
    "keepachangelog.com",
    "msdl.microsoft.com",
    "semver.org",
    "www.kernel.org",
];
/// What stands before `://` where no host follows: files, and devices in LeechCore's terms.
const NO_HOSTS: &[&str] = &["file", "fake", "rawudp", "rpc"];
/// Attributes and name parts that tests do without.
const TEST_HABITS: &[(&str, &str)] = &[
    (concat!("#[should_", "panic"), "assert the error instead"),
    (concat!("#[ign", "ore"), "assert what happens today, and say why it is wrong"),
    (concat!("fn te", "st_"), "name the fact"),
];
/// Lines of code in a file, tests not counted, from which on it is to be split.
const MOST_LINES: usize = 600;

/// Something that is wrong.
#[derive(PartialEq, Eq, Debug)]
struct Finding {
    line: usize,
    what: String,
}

/// Checks every tracked file.
pub(crate) fn tidy(args: &[String]) -> Result<(), String> {
    if let Some(arg) = args.first() {
        return Err(format!("unexpected argument {arg}; cargo xtask tidy takes none"));
    }
    let root = root();
    let unsafe_files = unsafe_files(&read(&root.join(UNSAFE_LIST))?)?;
    let mut findings = Vec::new();
    let mut seen_unsafe = BTreeSet::new();
    for path in tracked_files(&root)? {
        // Images and archives are no text.
        let Ok(text) = String::from_utf8(bytes(&root.join(&path))?) else { continue };
        let mut add = |found: Vec<Finding>| findings.extend(found.into_iter().map(|finding| (path.clone(), finding)));
        add(unfinished_work(&text));
        add(private_paths(&text));
        add(foreign_hosts(&text));
        if path.ends_with(".md") {
            add(broken_links(&text, &|link| root.join(&path).with_file_name(link).exists()));
        }
        if path.ends_with("Cargo.toml") {
            add(foreign_crates(&path, &text));
        }
        if path.ends_with(".rs") {
            add(missing_header(&path, &text));
            add(long_file(&text));
            add(habits_of_tests(&text));
            if let Some(module) = path.strip_prefix(LIBRARY) {
                add(arrows_to_the_right(module, &text));
            }
            let unsafe_lines = unsafe_code(&text);
            if unsafe_files.contains(&path) {
                if !unsafe_lines.is_empty() {
                    seen_unsafe.insert(path.clone());
                }
            } else {
                add(unsafe_lines);
            }
        }
    }
    for listed in unsafe_files.difference(&seen_unsafe) {
        let what = format!("lists {listed}, which holds no such code");
        findings.push((UNSAFE_LIST.to_owned(), Finding { line: 1, what }));
    }
    for (path, Finding { line, what }) in &findings {
        eprintln!("{path}:{line}: {what}");
    }
    if findings.is_empty() { Ok(()) } else { Err(format!("{} findings", findings.len())) }
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Files that git knows and that still exist, with `/` between folders.
fn tracked_files(root: &Path) -> Result<Vec<String>, String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let output = git.output().map_err(|error| format!("git: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(names.split('\0').filter(|name| !name.is_empty() && root.join(name).is_file()).map(str::to_owned).collect())
}

/// The files named between the two marks: a list of paths in backquotes.
fn unsafe_files(document: &str) -> Result<BTreeSet<String>, String> {
    let list = document.split_once(UNSAFE_BEGIN).and_then(|(_, rest)| rest.split_once(UNSAFE_END));
    let Some((list, _)) = list else {
        return Err(format!("{UNSAFE_LIST}: no list between `{UNSAFE_BEGIN}` and `{UNSAFE_END}`"));
    };
    Ok(list.split('`').skip(1).step_by(2).filter(|path| path.ends_with(".rs")).map(str::to_owned).collect())
}

/// Each line with its number, from 1 on.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Each line with its number and without its comment.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // A `//` inside a string cuts the line too early, which loses nothing that the rules look for.
    numbered(text).map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
}

fn missing_header(path: &str, text: &str) -> Vec<Finding> {
    // Tests of a module, cut off from it for length, belong to what its header says.
    if text.starts_with("//!") || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    vec![Finding { line: 1, what: "no module header (`//!`) that says what the file owns".to_owned() }]
}

fn long_file(text: &str) -> Vec<Finding> {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    let count = lines.filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")).count();
    if count <= MOST_LINES {
        return Vec::new();
    }
    vec![Finding { line: 1, what: format!("{count} lines of code, more than {MOST_LINES}: split it by concept") }]
}

fn unfinished_work(text: &str) -> Vec<Finding> {
    let marked = |line: &str| UNFINISHED.iter().find(|word| line.contains(*word));
    let finding = |(line, word): (usize, &&str)| Finding { line, what: format!("{word} marks unfinished work") };
    numbered(text).filter_map(|(number, line)| marked(line).map(|word| (number, word))).map(finding).collect()
}

fn private_paths(text: &str) -> Vec<Finding> {
    let named = |line: &str| PRIVATE_PATHS.iter().find(|path| line.contains(*path));
    let finding = |(line, path): (usize, &&str)| Finding { line, what: format!("{path} is a folder of one machine") };
    numbered(text).filter_map(|(number, line)| named(line).map(|path| (number, path))).map(finding).collect()
}

fn foreign_hosts(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in numbered(text) {
        for (before, rest) in
            content.match_indices("://").map(|(at, mark)| (&content[..at], &content[at + mark.len()..]))
        {
            if NO_HOSTS.iter().any(|scheme| before.ends_with(scheme)) {
                continue;
            }
            let host: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
            // Names of the documentation domains (RFC 2606) stand for any host.
            let reserved = host.ends_with(".example") || host.ends_with(".invalid");
            if !host.is_empty() && !reserved && !HOSTS.contains(&host.as_str()) {
                findings.push(Finding { line, what: format!("host {host} is not in the list of tidy.rs") });
            }
        }
    }
    findings
}

fn broken_links(text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in numbered(text) {
        for rest in content.split("](").skip(1) {
            let link = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !exists(link) {
                findings.push(Finding { line, what: format!("link to {link}, which does not exist") });
            }
        }
    }
    findings
}

fn habits_of_tests(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, content) in code(text) {
        for (habit, instead) in TEST_HABITS {
            if content.trim_start().starts_with(habit) {
                findings.push(Finding { line, what: format!("`{habit}`: {instead}") });
            }
        }
    }
    findings
}

fn foreign_crates(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, foreign) in FOREIGN_CRATES {
        for (line, content) in numbered(text).filter(|_| path.starts_with(folder)) {
            for name in *foreign {
                if content.trim_start().starts_with(&format!("{name}."))
                    || content.trim_start().starts_with(&format!("{name} "))
                {
                    findings.push(Finding { line, what: format!("packages in {folder} do not know {name}") });
                }
            }
        }
    }
    findings
}

/// The place of a module in the order; `None` when it stands beside it.
fn rank(module: &str) -> Option<usize> {
    FOLDER_ORDER.iter().position(|names| names.contains(&module))
}

fn arrows_to_the_right(path: &str, text: &str) -> Vec<Finding> {
    let module = path.split(['/', '.']).next().unwrap_or_default();
    // Tests may take what they need to build a machine.
    let tests = path.ends_with("tests.rs") || path.contains("/tests/");
    if module == "lib" || BESIDE.contains(&module) || tests {
        return Vec::new();
    }
    let Some(own) = rank(module) else {
        return vec![Finding { line: 1, what: format!("module {module} has no place in the order of tidy.rs") }];
    };
    let mut findings = Vec::new();
    for (line, name) in crate_paths(text) {
        if rank(&name).is_some_and(|other| other > own) {
            findings
                .push(Finding { line, what: format!("{module} must not know {name}: data flows from left to right") });
        }
    }
    findings
}

/// The first names after each `crate::`, groups in braces taken apart, with their lines.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let stripped: String = code(text).flat_map(|(_, line)| [line, "\n"]).collect();
    let mut names = Vec::new();
    for (at, found) in stripped.match_indices("crate::") {
        let rest = stripped.get(at + found.len()..).unwrap_or_default();
        let line_of =
            |offset: usize| 1 + stripped.bytes().take(at + found.len() + offset).filter(|byte| *byte == b'\n').count();
        let Some(group) = rest.strip_prefix('{') else {
            names.push((line_of(0), first_name(rest)));
            continue;
        };
        let mut depth = 1;
        let mut fresh = true;
        for (offset, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => fresh = true,
                _ if depth == 1 && fresh && !character.is_whitespace() => {
                    fresh = false;
                    names.push((line_of(1 + offset), first_name(group.get(offset..).unwrap_or_default())));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn unsafe_code(text: &str) -> Vec<Finding> {
    let word = concat!("un", "safe");
    // The type of a function pointer is no code.
    let pointer = format!("{word} extern \"C\" fn(");
    // Nor is the first half of an argument's name.
    let argument = format!("{word}-");
    let holds = |line: &str| {
        line.replace(&pointer, "")
            .replace(&argument, "")
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|token| token == word)
    };
    let finding = |line| Finding { line, what: format!("{word} code outside the files listed in {UNSAFE_LIST}") };
    code(text).filter(|(_, line)| holds(line)).map(|(number, _)| finding(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn use_that_points_right_is_found_in_groups_too() {
        let text = "use crate::{\n    address::PhysAddr,\n    error::{Error, Result},\n    view::{MemoryView},\n};\n\
                    // crate::os is only a comment\nfn f(_: &crate::os::Os) {}\n";
        assert_eq!(lines(&arrows_to_the_right("paging/walk.rs", text)), [4, 7]);
        assert_eq!(arrows_to_the_right("os/mod.rs", text), []);
        assert_eq!(arrows_to_the_right("testkit/machine.rs", text), []);
        assert_eq!(arrows_to_the_right("lib.rs", text), []);
        assert_eq!(lines(&arrows_to_the_right("address.rs", "use crate::memory::RunMap;")), [1]);
        assert_eq!(arrows_to_the_right("news/mod.rs", "").len(), 1);
    }

    #[test]
    fn words_for_unfinished_work_are_found() {
        let text = format!("ok\n// {}: later\n", UNFINISHED[0]);
        assert_eq!(lines(&unfinished_work(&text)), [2]);
        assert_eq!(unfinished_work("a list of things to do"), []);
    }

    #[test]
    fn hosts_that_are_not_known_are_found() {
        assert_eq!(foreign_hosts("https://docs.rs/x http://one.example/ file:///dev/null"), []);
        assert_eq!(lines(&foreign_hosts(&format!("x\nhttp:{}mirror.test/y", "//"))), [2]);
        assert_eq!(lines(&foreign_hosts(&format!("file://a.img,write=1 http:{}mirror.test/y", "//"))), [1]);
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        assert_eq!(lines(&private_paths(&format!("x\n{}a", PRIVATE_PATHS[0]))), [2]);
        assert_eq!(private_paths("/proc/1/root and /home"), []);
    }

    #[test]
    fn only_the_word_itself_is_code_that_is_not_checked() {
        let word = concat!("un", "safe");
        assert_eq!(lines(&unsafe_code(&format!("// {word}\n{word} {{ x() }}\n{word}_op_in_{word}_fn\n"))), [2]);
        assert_eq!(unsafe_code(&format!("f: {word} extern \"C\" fn(u32),")), []);
        assert_eq!(lines(&unsafe_code(&format!("{word} extern \"C\" fn f(_: u32) {{}}"))), [1]);
    }

    #[test]
    fn list_of_files_is_read_from_the_document() {
        let document = format!("`no.rs` {UNSAFE_BEGIN}\n- `a/b.rs`: why `x`\n- `c.rs`\n{UNSAFE_END} `d.rs`");
        assert_eq!(unsafe_files(&document).unwrap(), BTreeSet::from(["a/b.rs".to_owned(), "c.rs".to_owned()]));
        assert!(unsafe_files("nothing").is_err());
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "[a](there.md) [b](https://x.example) [c](gone.md#part) [d](#here)";
        assert_eq!(broken_links(text, &|link| link == "there.md").len(), 1);
    }

    #[test]
    fn header_is_the_first_line() {
        assert_eq!(missing_header("a.rs", "//! Owns.\n"), []);
        assert_eq!(missing_header("a/tests.rs", "use super::*;\n"), []);
        assert_eq!(lines(&missing_header("a.rs", "use x;\n//! Late.\n")), [1]);
    }

    #[test]
    fn length_is_counted_without_comments_and_tests() {
        let code = "x\n".repeat(MOST_LINES);
        assert_eq!(long_file(&format!("{code}// more\n\n#[cfg(test)]\nmod tests;\n")), []);
        assert_eq!(lines(&long_file(&format!("{code}x\n"))), [1]);
    }

    #[test]
    fn habits_of_tests_are_found() {
        let text = format!("    {}]\nfn fine() {{}}\n{}x() {{}}\n", TEST_HABITS[1].0, TEST_HABITS[2].0);
        assert_eq!(lines(&habits_of_tests(&text)), [1, 3]);
    }

    #[test]
    fn crates_that_must_not_know_each_other_are_found() {
        assert_eq!(lines(&foreign_crates("os/linux/Cargo.toml", "x\nmemflow-snapshot.workspace = true")), [2]);
        assert_eq!(foreign_crates("memflow-cli/Cargo.toml", "memflow-snapshot.workspace = true"), []);
    }
}
