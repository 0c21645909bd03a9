//! The project's tasks. `cargo xtask` lists them.
//!
//! One table: name, function, one line of help. CI calls tasks, never raw commands.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool talks on its streams")]

mod guests;
mod plugins;
mod test;
mod tidy;

use std::process::ExitCode;

/// One task: its name on the command line, its line of help, and what it does.
struct Task {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<(), String>,
}

/// Every task, in the order of the help.
const TASKS: &[Task] = &[
    Task { name: "test", help: "everything: format, tidy, clippy, documentation, tests, real guests", run: test::test },
    Task { name: "ci", help: "what the CI runs: `test`, and `deny` if cargo-deny is installed", run: test::ci },
    Task { name: "tidy", help: "rules of the project that no other tool checks", run: tidy::tidy },
    Task { name: "deny", help: "licences and advisories of the dependencies", run: test::deny },
    Task { name: "guests", help: "prepare real guests for tests; --list shows them", run: guests::guests },
    Task {
        name: "plugins",
        help: "build the tree's plugins and install them for the user, or in --dir DIR; uninstall them",
        run: plugins::plugins,
    },
    Task { name: "demo", help: "make the committed demo snapshot anew", run: guests::demo },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(task) = args.first().and_then(|name| TASKS.iter().find(|task| task.name == name)) else {
        println!("usage: cargo xtask TASK [ARGUMENT…]\n");
        for task in TASKS {
            println!("  {:<12} {}", task.name, task.help);
        }
        return ExitCode::from(2);
    };
    match (task.run)(args.get(1..).unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
