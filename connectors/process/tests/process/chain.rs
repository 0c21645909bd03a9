//! Chains of plugins: a toy machine, a toy operating system in it, and the memory of one of its processes.

use std::sync::{Arc, Mutex};

use memflow_core::{
    Error, PhysAddr, Result,
    memory::{BufferMemory, PhysicalMemory, PhysicalMemoryExt, RunMap, SourceConfig, TargetFacts},
    plugin::{
        Chain, ChainError, Connection, ConnectorRequest, Inventory, OsRequest,
        args::{ConnectorSpec, OsSpec},
    },
};

use crate::common::{self, RAM, TestOs, builder, fill};

mod toy_machine {
    use super::*;

    /// A machine that is built in code.
    #[memflow_derive::connector(
        name = "toy",
        accepts(content),
        args(layout: text = "auto" => "what it proposes to be opened with, or nothing", size: size => "what is wanted")
    )]
    fn open(request: &ConnectorRequest<'_>) -> Result<Connection> {
        request.step("opening", 1, 2)?;
        let layout = request.args.text("layout")?.unwrap_or_default().to_owned();
        let (target, content) = (request.target.unwrap_or_default(), request.content.unwrap_or_default());
        let four_pages = || {
            let config = SourceConfig { name: "two".into(), runs: RunMap::flat(0x4000), facts: TargetFacts::default() };
            BufferMemory::new(config, vec![0; 0x4000])
        };
        let memory = if layout == "two" { Arc::new(four_pages()?) } else { common::machine().memory };
        let mut connection =
            Connection::new(memory).with_format(format!("{target} {layout} {}", String::from_utf8_lossy(content)));
        if let Some(list) = target.strip_prefix("proposes ").filter(|_| layout == "auto") {
            for layout in list.split(' ') {
                connection = connection.with_alternative(request.args.clone().with("layout", layout));
            }
        }
        Ok(connection)
    }
}

mod toy_os {
    use super::*;

    /// An operating system with one process, in which the machine lies again.
    #[memflow_derive::os_layer(name = "toyos", args(pages: number => "recognise only machines of that size", torn: flag => "lack processes"))]
    fn open(request: OsRequest<'_>) -> Result<TestOs> {
        let pages = request.memory.metadata().runs.total_bytes() / 0x1000;
        if request.args.number("pages")?.is_some_and(|wanted| wanted != pages) {
            return Err(Error::NotRecognised { what: "toy", looked_for: "pages".to_owned() });
        }
        let mut builder = builder();
        fill(&mut builder);
        let os = TestOs::new(builder.build()?, &[(612, "monitor"), (613, "other")]);
        Ok(if request.args.flag("torn")? == Some(true) { os.with_problem() } else { os })
    }
}

fn inventory() -> Inventory {
    Inventory::builder()
        .connector::<toy_machine::Plugin>()
        .unwrap()
        .connector::<memflow_process::Plugin>()
        .unwrap()
        .os_layer::<toy_os::Plugin>()
        .unwrap()
        .build()
}

fn chain() -> Chain {
    inventory().chain()
}

fn connector(text: &str) -> ConnectorSpec {
    text.parse().unwrap()
}

fn os(text: &str) -> OsSpec {
    text.parse().unwrap()
}

/// Five of the six pages of the process' RAM.
fn process() -> ConnectorSpec {
    let runs = format!("0-0x2fff@{RAM:#x},0x10000-0x11fff@{:#x}", RAM + 0x4000);
    ConnectorSpec::new("process").unwrap().with_target("monitor").with_arg("runs", runs)
}

fn text<T: std::fmt::Debug>(result: Result<T, ChainError>) -> (usize, String) {
    let error = result.unwrap_err();
    let (number, text) = (error.number, error.to_string());
    assert_eq!(Error::from(error).to_string(), text);
    (number, text)
}

#[test]
fn machine_in_a_process_of_a_machine() {
    let inner = chain()
        .connector(connector("toy:outer"))
        .unwrap()
        .os(os("toyos"))
        .unwrap()
        .connector(process())
        .unwrap()
        .os(os("toyos"))
        .unwrap();
    assert_eq!(inner.os().processes().unwrap().items.len(), 2);
    let middle = inner.previous();
    let outer = middle.previous().unwrap();
    let numbers = [inner.number(), middle.number(), outer.number(), outer.previous().number()];
    assert_eq!(numbers, [4, 3, 2, 1]);
    assert_eq!(middle.connection().format, "process monitor (612) of Test 1");
    assert_eq!(outer.previous().spec().target(), Some("outer"));
    let mut bytes = [0; 4];
    middle.memory().read_into(PhysAddr::new(0x1_0ffe), &mut bytes).unwrap();
    assert_eq!(bytes, [4, 4, 5, 5], "pages hold their own numbers");
    assert!(middle.memory().read_into(PhysAddr::new(0x3000), &mut bytes).unwrap_err().is_not_in_image());
}

/// What is opened stays while any link of it is there, and a link can be continued twice.
#[test]
fn link_is_continued_in_several_ways() {
    let outer = chain().connector(connector("toy:outer")).unwrap().os(os("toyos")).unwrap();
    let one = outer.clone().connector(process()).unwrap();
    let other = outer.connector(process().with_target("613")).unwrap();
    assert_eq!(one.connection().format, "process monitor (612) of Test 1");
    assert_eq!(other.connection().format, "process other (613) of Test 1");
    assert_eq!(other.memory().metadata().runs.total_bytes(), 0x5000);
}

#[test]
fn each_error_names_its_link() {
    let outer = || chain().connector(connector("toy:outer")).unwrap().os(os("toyos")).unwrap();
    let (link, error) = text(chain().connector(connector("toy:outer:layot=x")));
    let expected = "link 1 (connector toy): unknown argument `layot`, did you mean `layout`?; accepted: layout=TEXT (";
    assert!(link == 1 && error.starts_with(expected), "{error}");
    let (link, error) = text(chain().connector(connector("toy:outer:size=5mb")));
    assert!(link == 1 && error.starts_with("link 1 (connector toy): argument `size`: expected a size"), "{error}");
    let (link, error) = text(chain().connector(connector("toy")).unwrap().os(os("toyos:pages=0")));
    assert_eq!((link, &*error), (2, "link 2 (OS layer toyos): no toy found; looked for pages"));
    let (link, error) = text(chain().connector(connector("toy")).unwrap().os(os("windows")));
    assert_eq!(link, 2);
    assert!(error.starts_with("link 2 (OS layer windows): ") && error.contains("there are: toyos@"), "{error}");
    let (link, error) = text(outer().connector(connector("process:nobody")));
    assert_eq!((link, &*error), (3, "link 3 (connector process): no process nobody in this target"));
    let (link, error) = text(outer().connector(process()).unwrap().os(os("toyos:pages=0")));
    assert_eq!((link, &*error), (4, "link 4 (OS layer toyos): no toy found; looked for pages"));
}

#[test]
fn connector_in_the_wrong_place_is_told_where_it_belongs() {
    let (link, error) = text(chain().connector(connector("process:monitor")));
    assert_eq!(
        (link, &*error),
        (
            1,
            "link 1 (connector process): this connector at the start of a chain is not supported: it looks into an operating system; \
             put the connector and the OS layer of that one before it"
        )
    );
    let outer = chain().connector(connector("toy:outer")).unwrap().os(os("toyos")).unwrap();
    let (link, error) = text(outer.connector(connector("toy:inner")));
    assert_eq!(
        (link, &*error),
        (
            3,
            "link 3 (connector toy): connector toy behind an OS layer is not supported: it does not look into operating systems; put it \
             first, or take a connector that accepts `os` (`memflow plugins show NAME`)"
        )
    );
    let (link, error) = text(chain().connector_with_content(connector("process:monitor"), b"bytes"));
    assert!(link == 1 && error.contains("a target in memory for connector process is not supported"), "{error}");
}

#[test]
fn target_and_runs_are_read_from_text() {
    let outer = || chain().connector(connector("toy:outer")).unwrap().os(os("toyos")).unwrap();
    let failed = |spec: &str| text(outer().connector(connector(spec))).1;
    assert!(failed("process").contains("target: expected the pid or the name of a process"));
    assert!(failed("process:\"\"").contains("process: expected a pid below 2^32, or a name that is more than digits"));
    assert!(failed("process:4294967296").contains("found `4294967296`"));
    assert!(failed("process:999").contains("no process with pid 999"), "{}", failed("process:999"));
    assert!(
        failed("process:monitor:runs=5").contains("expected FIRST-LAST@OFFSET"),
        "{}",
        failed("process:monitor:runs=5")
    );
    assert!(failed("process:monitor:runs=\"0-5@0,5-6@9\"").contains("overlap"));
    let past =
        ConnectorSpec::new("process").unwrap().with_target("monitor").with_arg("runs", "0-0xfff@0xffffffffffffff00");
    assert!(text(outer().connector(past)).1.contains("leave the address space"));
    // A process of the toy system has no mappings that could be RAM.
    assert!(failed("process:monitor").contains("no writable mapping"), "{}", failed("process:monitor"));
}

#[test]
fn content_takes_the_place_of_the_target() {
    let link = chain().connector_with_content(connector("toy:name"), b"bytes".to_vec()).unwrap();
    assert_eq!(link.connection().format, "name auto bytes");
}

#[test]
fn alternatives_of_a_connector_are_tried_and_named() {
    let link = |target: &str| chain().connector(connector(target)).unwrap();
    // A system with a whole process list is there at once.
    let found = link("toy:proposes one two").os(os("toyos")).unwrap();
    assert_eq!(found.previous().connection().format, "proposes one two auto ");
    // None has one; the first that was opened is kept.
    let found = link("toy:proposes one two").os(os("toyos:torn")).unwrap();
    assert_eq!(found.previous().connection().format, "proposes one two auto ");
    assert!(found.previous().connection().notes.is_empty());
    let (number, error) = text(link("toy:proposes one two").os(os("toyos:pages=0")));
    assert_eq!(number, 2);
    assert_eq!(
        error,
        "link 2 (OS layer toyos): proposes one two (nor with layout=one or layout=two): no toy found; looked for pages"
    );
    let found = link("toy:proposes one two:cache=1MiB").os(os("toyos:pages=4")).unwrap();
    assert_eq!(found.previous().connection().format, "proposes one two two ");
    assert_eq!(found.previous().connection().notes, ["opened with layout=two: the operating system was found so"]);
    assert_eq!(found.previous().spec().to_string(), "toy:proposes one two:cache=1MiB,layout=two");
    // An argument that is wrong is wrong with every layout.
    let (_, error) = text(link("toy:proposes one two").os(os("toyos:nonsense")));
    assert!(error.starts_with("link 2 (OS layer toyos): unknown argument `nonsense`"), "{error}");
}

#[test]
fn progress_is_told_and_cancels() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let keep = told.clone();
    let tell = move |stage: &str, done, total| {
        keep.lock().unwrap().push((stage.to_owned(), done, total));
        std::ops::ControlFlow::Continue(())
    };
    let chain_of_it = chain().with_progress(tell);
    assert!(told.lock().unwrap().is_empty(), "nothing is opened before its step");
    chain_of_it.connector(connector("toy")).unwrap();
    assert_eq!(*told.lock().unwrap(), [("opening".to_owned(), 1, 2)]);
    let stop = chain().with_progress(|_, _, _| std::ops::ControlFlow::Break(()));
    assert_eq!(text(stop.connector(connector("toy"))).1, "link 1 (connector toy): cancelled");
}

/// Layers are those of the link that asked for them, also when it was opened again.
#[test]
fn layers_belong_to_their_link() {
    let inner = chain()
        .connector(connector("toy:outer:metrics"))
        .unwrap()
        .os(os("toyos"))
        .unwrap()
        .connector(process().with_arg("metrics", true).with_arg("cache", 1 << 20))
        .unwrap();
    inner.memory().read_into(PhysAddr::new(0), &mut [0; 16]).unwrap();
    inner.memory().read_into(PhysAddr::new(8), &mut [0; 16]).unwrap();
    assert_eq!(inner.metrics().unwrap().snapshot().reads.calls, 1, "the second comes from the cache above");
    assert!(inner.previous().unwrap().previous().metrics().is_some());
}
