//! Targets that stand still while they are dumped, and run again whatever happens; `pause` and `resume`. The target is a plugin that
//! notes what is asked of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use super::util::{Run, command, run_in};

/// The plugins that misbehave on demand.
pub(crate) fn misbehaving() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = Path::new(env!("CARGO_BIN_EXE_memflow")).parent().unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "-p", "memflow-test-plugins", "--lib"]).current_dir(root);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.env("CARGO_TARGET_DIR", folder.parent().unwrap());
        assert!(cargo.status().unwrap().success());
        folder.join("libmisbehaving.so")
    })
}

/// A folder with a machine in it that writes down when it is paused and resumed.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A command on the machine.
    fn command(&self, words: &str, machine: &str) -> Command {
        let mut command = command(self.path(), words.split_whitespace());
        command.arg(format!("faulty:machine:events=events,{machine}")).arg("--plugin").arg(misbehaving());
        command
    }

    fn run(&self, words: &str, machine: &str) -> Run {
        run_of(self.command(words, machine).output().unwrap())
    }

    /// What the machine was asked for.
    fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path().join("events")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What else is in the folder.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "events").collect()
    }

    /// Starts a dump and waits until the machine was asked for this.
    fn started(&self, words: &str, machine: &str, events: &[&str]) -> Child {
        let mut command = self.command(words, machine);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while self.events() != events {
            assert!(started.elapsed() < Duration::from_secs(60), "the machine was asked for {:?}", self.events());
            thread::sleep(Duration::from_millis(2));
        }
        child
    }
}

fn run_of(output: Output) -> Run {
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// 64 reads, each of which takes a while.
const SLOW: &str = "size=64MiB,delay=250ms";

#[test]
fn machine_stands_while_it_is_dumped() {
    let place = Place::new();
    let document = place.run("dump -o out --format raw --json", "size=9MiB").json();
    assert_eq!((&document["size"], &document["live"]), (&(9 << 20).into(), &false.into()));
    assert_eq!(place.events(), ["pause", "resume"]);
    let bytes = fs::read(place.path().join("out")).unwrap();
    assert_eq!((bytes.len(), bytes[0x54320]), (9 << 20, 0x32));
    // Parts of its memory too.
    place.run("dump -o part --phys 0x2000+16", "size=9MiB").complete();
    assert_eq!(place.events(), ["pause", "resume", "pause", "resume"]);
    assert_eq!(fs::read(place.path().join("part")).unwrap(), [0; 16]);
}

#[test]
fn pause_and_its_length_are_told_who_asks() {
    let place = Place::new();
    let Run { code, err, .. } = place.run("dump -o out --verbose", "size=64KiB");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!((code, lines[0]), (0, "note: the target is paused"), "{err}");
    assert!(lines[1].starts_with("note: the target was paused for 0.") && lines[1].ends_with(" s"), "{err}");
}

#[test]
fn machine_runs_again_after_an_error_in_the_middle() {
    for fault in ["fault=error,kind=Io", "fault=panic", "fault=fewer"] {
        let place = Place::new();
        let machine = format!("size=16MiB,at=memory.read,from=8MiB,{fault}");
        let Run { code, out, err } = place.run("dump -o out", &machine);
        assert_eq!((code, out.as_str()), (1, ""), "{fault}: {err}");
        assert_eq!((place.events(), place.files()), (vec!["pause".into(), "resume".into()], vec![]), "{fault}: {err}");
    }
}

#[test]
fn machine_runs_again_when_the_output_cannot_be_written() {
    let place = Place::new();
    let error = place.run("dump -o /dev/full", "size=16MiB").error(4);
    assert_eq!(error, "writing /dev/full at offset 0x0: No space left on device (os error 28)");
    assert_eq!(place.events(), ["pause", "resume"]);

    // A limit that the shell sets: writing past it would be the end of the process, not an error.
    let dump = place.command("dump -o out", "size=16MiB");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 9216; exec \"$0\" \"$@\""]).arg(dump.get_program()).args(dump.get_args());
    let error = run_of(shell.current_dir(place.path()).output().unwrap()).error(4);
    assert!(error.ends_with(": files may have at most 4.5 MiB here (ulimit -f)"), "{error}");
    assert_eq!((place.events().len(), place.files()), (4, vec![]));
}

#[test]
fn machine_runs_again_after_ctrl_c() {
    for name in ["-INT", "-TERM", "-HUP"] {
        for output in ["out", "-"] {
            let place = Place::new();
            let child = place.started(&format!("dump --quiet -o {output}"), SLOW, &["pause"]);
            signal(&child, name);
            let run = run_of(child.wait_with_output().unwrap());
            assert_eq!((run.code, run.err.as_str()), (130, "error: interrupted\n"), "{name} {output}");
            assert_eq!((place.events(), place.files()), (vec!["pause".into(), "resume".into()], vec![]));
        }
    }
}

#[test]
fn second_ctrl_c_ends_a_dump_that_hangs_and_the_machine_runs_again() {
    let place = Place::new();
    let child = place.started("dump -o out", "size=16MiB,fault=hang,at=memory.read,from=8MiB", &["pause", "read"]);
    let started = Instant::now();
    signal(&child, "-INT");
    thread::sleep(Duration::from_millis(300));
    assert_eq!(place.events(), ["pause", "read"], "the first one leaves it to the work, which does not come to it");
    signal(&child, "-INT");
    let run = run_of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.err.as_str()), (130, ""));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!((place.events(), place.files()), (vec!["pause".into(), "read".into(), "resume".into()], vec![]));
}

/// A connector that hangs in everything: nothing can be done, and that is said.
#[test]
fn second_ctrl_c_does_not_wait_for_a_connector_that_never_answers() {
    let place = Place::new();
    let child = place.started("dump -o out", &format!("{SLOW},fault=hang,at=memory.resume"), &["pause"]);
    signal(&child, "-INT");
    thread::sleep(Duration::from_millis(300));
    signal(&child, "-INT");
    let run = run_of(child.wait_with_output().unwrap());
    let told = "error: the target may stand still: its connector does not answer; `memflow resume` lets it run\n";
    assert_eq!((run.code, run.err.as_str()), (130, told));
    assert_eq!((place.events(), place.files()), (vec!["pause".into()], vec![]));
}

#[test]
fn machine_that_was_paused_before_stays_so() {
    let place = Place::new();
    let document = place.run("dump -o out --json", "state=paused").json();
    assert_eq!((&document["live"], place.events().len()), (&false.into(), 0));
    let error = place.run("dump -o other", "state=paused,fault=panic,at=memory.read").error(1);
    assert!(error.contains("panicked"), "{error}");
    assert_eq!((place.events().len(), place.files()), (0, vec!["out".into()]));
}

#[test]
fn machine_that_does_not_stop_is_not_dumped() {
    for (fault, why) in [("fault=error,kind=Io", "looking: Input/output error"), ("fault=panic", "panicked: as asked")]
    {
        for at in ["memory.pause", "memory.run_state"] {
            let place = Place::new();
            let error = place.run("dump -o out", &format!("{fault},at={at}")).error(1);
            let way_out = "pausing the target (--no-pause leaves it running): ";
            assert!(error.starts_with(way_out) && error.contains(why), "{error}");
            assert!(place.files().is_empty());
            // One that may have stopped all the same is let run.
            assert_eq!(place.events().len(), usize::from(at == "memory.pause"));
            place.run("dump -o out --no-pause", &format!("{fault},at={at}")).complete();
        }
    }
}

#[test]
fn machine_that_does_not_run_again_is_told() {
    let place = Place::new();
    let broken = "fault=error,kind=Io,at=memory.resume";
    let Run { code, out, err } = place.run("dump -o out", broken);
    let still = "the target stands still and does not run again (try `memflow resume`): looking: Input/output error (os error 5)";
    assert_eq!((code, err), (1, format!("error: {still}\n")));
    assert!(out.starts_with("out: ") && place.files() == ["out"], "the dump is good: {out}");
    // Also by those who want to hear nothing else, and beside another error.
    let Run { code, err, .. } = place.run("dump -o /dev/full --quiet", broken);
    let written = "writing /dev/full at offset 0x0: No space left on device (os error 28)";
    assert_eq!((code, err), (4, format!("error: {still}\nerror: {written}\n")));
}

#[test]
fn machine_that_cannot_be_paused_is_dumped_with_a_warning() {
    let place = Place::new();
    let Run { code, out, err } = place.run("dump -o out --json", "control=no");
    let torn =
        "warning: the target runs, and its connector cannot pause it: what changes while it is written is torn\n";
    assert_eq!((code, err.as_str()), (0, torn));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["live"], true);
    place.run("dump -o left --no-pause", "control=yes").complete();
    assert!(place.events().is_empty());
    // Whether a machine runs in a file nobody knows, so that is said only to who asks.
    fs::write(place.path().join("image"), [0; 0x2000]).unwrap();
    run_in(place.path(), ["dump", "image", "-o", "copy"]).complete();
    let told = run_in(place.path(), ["dump", "image", "-o", "again", "--verbose"]).err;
    assert!(
        told.contains("note: a file cannot be paused: if a running machine's memory lies in it, what changes"),
        "{told}"
    );
}

#[test]
fn pause_and_resume_say_what_they_did() {
    let place = Place::new();
    let name = "faulty:machine:events=events,state";
    for (line, state, expected, events) in [
        ("pause", "running", "paused", &["pause"][..]),
        ("pause", "paused", "paused already", &["pause"]),
        ("resume", "paused", "running", &["resume"]),
        ("resume", "running", "running already", &["resume"]),
    ] {
        drop(fs::remove_file(place.path().join("events")));
        assert_eq!(place.run(line, &format!("state={state}")).complete(), format!("{name}={state}: {expected}\n"));
        assert_eq!(place.events(), events, "{line} {state}");
    }
    let document = place.run("pause --json", "state=running").json();
    let expected = serde_json::json!({
        "target": format!("{name}=running"), "state": "paused", "before": "running", "problems": []
    });
    assert_eq!(document, expected);
}

#[test]
fn pause_that_cannot_be_is_an_error() {
    let place = Place::new();
    let error = place.run("pause", "control=no").error(1);
    assert_eq!(
        error,
        "pausing or resuming faulty:machine:events=events,control=no is not supported: its connector has no control over whether it \
         runs"
    );
    assert!(run_in(place.path(), ["resume", "demo"]).error(1).contains("has no control"));
    let error = place.run("pause", "fault=panic,at=memory.pause").error(1);
    assert!(error.starts_with("plugin faulty 0.1.0: the code of the plugin panicked: as asked"), "{error}");
}

#[test]
fn description_tells_the_state_and_the_registers_of_arm_vcpus() {
    let place = Place::new();
    let described = place.run("info --verbose", "state=paused");
    for line in ["state    paused", "vCPUs    1, registers known", "         ttbr1 0x1000  pc 0xffff800000000010"] {
        assert!(described.out.lines().any(|found| found == line), "{line}: {}", described.out);
    }
    let described = place.run("info --json", "state=running");
    let document: serde_json::Value = serde_json::from_str(&described.out).unwrap();
    assert_eq!(document["target"]["state"], "running");
    let vcpu = &document["target"]["vcpus"][0];
    assert_eq!((&vcpu["ttbr1_el1"], &vcpu["ttbr0_el1"]), (&"0x1000".into(), &serde_json::Value::Null));
    assert!(vcpu.get("cr3").is_none());
    let failing = place.run("info --json", "fault=error,kind=Io,at=memory.run_state");
    let document: serde_json::Value = serde_json::from_str(&failing.out).unwrap();
    assert_eq!(document["target"]["state"], serde_json::Value::Null);
    assert!(
        document["problems"].to_string().contains("the target's state: looking: Input/output error"),
        "{}",
        failing.out
    );
}
