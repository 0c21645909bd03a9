//! Documents whose commands are run: what they show is what is printed.
//!
//! Fences say what a block is:
//!
//! | fence | |
//! |---|---|
//! | `console`, `console lines=N` | `$ ` and one command, then what it prints; after N lines a `…` stands for the rest |
//! | `sh` | commands that must succeed |
//! | `LANGUAGE file=PATH`, `LANGUAGE append=PATH` | a file, or the end of one; `$MEMFLOW` in it is the checkout |
//!
//! Other blocks are only shown. `UPDATE_README=1` writes the sessions anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

const FENCE: &str = "```";
/// The user's folder in what is shown.
const HOME: &str = "/home/you";

/// Where the commands of a document run: a folder that is also the user's home, with a `memflow` that no plugin lies beside.
pub(crate) struct Place {
    home: PathBuf,
    current: PathBuf,
    path: std::ffi::OsString,
    variables: Vec<(&'static str, PathBuf)>,
}

/// The checkout.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

impl Place {
    /// A place in `home`, which is there and empty.
    pub(crate) fn new(home: &Path) -> Self {
        let home = home.canonicalize().unwrap();
        let programs = home.join("bin");
        fs::create_dir(&programs).unwrap();
        let (from, to) = (env!("CARGO_BIN_EXE_memflow"), programs.join("memflow"));
        // The program looks beside itself for plugins, where a link to it lies as well as a copy.
        if fs::hard_link(from, &to).is_err() {
            fs::copy(from, &to).unwrap();
        }
        let path = env::split_paths(&env::var_os("PATH").unwrap()).collect::<Vec<_>>();
        let path = env::join_paths([programs].into_iter().chain(path)).unwrap();
        let old_home = env::home_dir().unwrap();
        let tool = |name: &str, folder: &str| env::var_os(name).map_or_else(|| old_home.join(folder), PathBuf::from);
        let variables = vec![
            ("HOME", home.clone()),
            ("MEMFLOW", checkout()),
            ("CARGO_HOME", tool("CARGO_HOME", ".cargo")),
            ("RUSTUP_HOME", tool("RUSTUP_HOME", ".rustup")),
        ];
        Self { current: home.clone(), home, path, variables }
    }

    /// Sets a variable for the commands.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<PathBuf>) {
        self.variables.push((name, value.into()));
    }

    /// Runs commands with the shell; a change of the folder lasts.
    fn run(&mut self, commands: &str) -> Output {
        let state = self.home.join(".folder");
        let output = Command::new("sh")
            .args(["-e", "-c"])
            .arg(format!("trap 'pwd > \"$HOME/.folder\"' EXIT\n{commands}"))
            .current_dir(&self.current)
            .env("PATH", &self.path)
            .env("COLUMNS", "120")
            .env_remove("MEMFLOW_LOG")
            .env_remove("MEMFLOW_PLUGIN_PATH")
            // Caches lie in the home that was made for this.
            .env_remove("MEMFLOW_CACHE_DIR")
            .env_remove("XDG_CACHE_HOME")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        self.current = PathBuf::from(fs::read_to_string(state).unwrap().trim_end());
        output
    }

    /// A command and its output, messages first, as a terminal shows both.
    fn session(&mut self, command: &str, most: Option<usize>) -> String {
        let output = self.run(command.strip_prefix("$ ").unwrap());
        let all = String::from_utf8([output.stderr, output.stdout].concat()).unwrap();
        let all = all.replace(&self.home.display().to_string(), HOME);
        let all: Vec<&str> = all.lines().map(str::trim_end).collect();
        let shown = most.unwrap_or(all.len()).min(all.len());
        let mut text = format!("{command}\n");
        for line in &all[..shown] {
            text.push_str(line);
            text.push('\n');
        }
        if shown < all.len() {
            text.push_str("…\n");
        }
        text
    }

    /// Carries out a block that is not a session.
    fn carry_out(&mut self, info: &str, text: &str) {
        let (language, option) = info.split_once(' ').unwrap_or((info, ""));
        let whole = || text.replace("$MEMFLOW", &checkout().display().to_string());
        if let Some(name) = option.strip_prefix("file=") {
            fs::write(self.current.join(name), whole()).unwrap();
        } else if let Some(name) = option.strip_prefix("append=") {
            let path = self.current.join(name);
            let before = fs::read_to_string(&path).unwrap();
            fs::write(path, before + &whole()).unwrap();
        } else if language == "sh" {
            let output = self.run(text);
            assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Runs a document of the checkout; returns how many sessions it has.
pub(crate) fn check(name: &str, place: &mut Place) -> usize {
    let path = checkout().join(name);
    let old = fs::read_to_string(&path).unwrap();
    let mut new = String::new();
    let mut sessions = 0;
    let mut lines = old.lines();
    while let Some(line) = lines.next() {
        new.push_str(line);
        new.push('\n');
        let Some(info) = line.strip_prefix(FENCE) else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != FENCE).collect();
        if info.split(' ').next() == Some("console") {
            let (command, shown) = block.split_first().unwrap();
            assert!(shown.iter().all(|line| !line.starts_with("$ ")), "one command a block: {command}");
            new.push_str(&place.session(command, info.split_once("lines=").map(|(_, count)| count.parse().unwrap())));
            sessions += 1;
        } else {
            let text: String = block.iter().flat_map(|line| [line, "\n"]).collect();
            place.carry_out(info, &text);
            new.push_str(&text);
        }
        new.push_str(FENCE);
        new.push('\n');
    }
    if env::var_os("UPDATE_README").is_some() {
        fs::write(&path, new).unwrap();
    } else {
        for (shown, real) in old.lines().zip(new.lines()) {
            assert_eq!(shown, real, "{name} shows other output than is printed; UPDATE_README=1 writes it anew");
        }
        assert_eq!(old.lines().count(), new.lines().count(), "{name}; UPDATE_README=1 writes it anew");
    }
    sessions
}
