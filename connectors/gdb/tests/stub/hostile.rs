//! Stubs that lie, stall and ramble: an error soon, for what it touches, and never a wrong byte.

use std::time::{Duration, Instant};

use memflow_core::{
    Error, PhysAddr, PhysicalMemory,
    memory::{Outcome, PhysRead},
};
use memflow_gdb::{Opened, open};

use crate::common::{Reply, Stub, byte, frame, hex, options, text};

/// Opens, which must fail soon; the error's text.
fn refused(stub: Stub) -> String {
    let stub = stub.listen();
    let started = Instant::now();
    let error = stub.open().map(|opened| opened.format).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}: {error}", started.elapsed());
    stub.end();
    error.to_string()
}

/// Opens, and reads two pages, the first at 0x1000; bytes and outcomes.
fn read_two(opened: &Opened) -> (Vec<u8>, Outcome, Vec<u8>, Outcome, memflow_core::Result<()>) {
    let (mut first, mut second) = (vec![0xee; 0x800], vec![0xee; 0x800]);
    let mut ops = [PhysRead::new(PhysAddr::new(0x1000), &mut first), PhysRead::new(PhysAddr::new(0x3000), &mut second)];
    let started = Instant::now();
    let result = opened.memory.read_batch(&mut ops);
    assert!(started.elapsed() < Duration::from_secs(5));
    let outcomes = [ops[0].outcome, ops[1].outcome];
    (first, outcomes[0], second, outcomes[1], result)
}

fn right(bytes: &[u8], at: u64) -> bool {
    bytes.iter().zip(at..).all(|(found, at)| *found == byte(at))
}

/// A stub whose answers to reads at 0x1000 are this; the connection must survive, and only that read fail.
fn only_that_read_fails(reply: impl Fn() -> Reply + Send + 'static) {
    let stub = Stub::qemu().on("m1000,", move |_| reply()).listen();
    let opened = stub.open().unwrap();
    let (first, failed, second, done, _) = read_two(&opened);
    assert!(!failed.is_done() && done.is_done(), "{failed:?} {done:?}");
    assert!(first.iter().all(|byte| *byte == 0xee) && right(&second, 0x3000));
    drop(opened);
    assert!(stub.end().running);
}

/// A stub whose answers to reads at 0x1000 are this; the connection is given up, soon, and no byte is wrong.
fn connection_is_given_up(stub: Stub, why: &str) {
    let stub = stub.listen();
    let opened = stub.open().unwrap();
    let (first, failed, second, other, result) = read_two(&opened);
    let error = result.unwrap_err().to_string();
    assert!(!failed.is_done() && error.contains(why), "{failed:?} {error}");
    assert!(first.iter().all(|byte| *byte == 0xee) || right(&first, 0x1000));
    assert!(if other.is_done() { right(&second, 0x3000) } else { second.iter().all(|byte| *byte == 0xee) });
    // What comes later is not waited for.
    let started = Instant::now();
    let (.., result) = read_two(&opened);
    assert!(result.unwrap_err().to_string().contains(why) && started.elapsed() < Duration::from_millis(200));
    assert!(opened.memory.control().unwrap().run_state().is_err());
}

#[test]
fn stub_that_never_answers() {
    let error = refused(Stub::qemu().on("q", |_| Reply::Silence));
    assert!(error.contains("no answer in 0.4 s") && error.contains("another client"), "{error}");
}

#[test]
fn nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let address = memflow_gdb::Address::Unix(folder.path().join("nobody"));
    let error = open(&address, &options()).unwrap_err();
    assert!(error.to_string().contains("nobody: No such file"), "{error}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = open(&closed.parse().unwrap(), &options()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains(&closed), "{error}");
}

#[test]
fn queue_that_nobody_takes_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let started = Instant::now();
    let mut clients = Vec::new();
    // The queue of the standard library's listener is longer than this waits for; each one times out by itself.
    for _ in 0..4 {
        let error = open(&memflow_gdb::Address::Unix(path.clone()), &options()).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
        clients.push(std::os::unix::net::UnixStream::connect(&path).unwrap());
    }
    assert!(started.elapsed() < Duration::from_secs(8));
    drop(listener);
}

#[test]
fn bytes_that_are_no_packets() {
    let noise = Reply::Endless as fn(Vec<u8>) -> Reply;
    let error = refused(Stub::qemu().on("qSupported", move |_| noise(b"HTTP/1.1 400 Bad Request\r\n".to_vec())));
    assert!(error.contains("no GDB stub"), "{error}");
}

#[test]
fn packet_without_an_end() {
    let error = refused(Stub::qemu().on("qSupported", |_| Reply::Endless(vec![b'$'; 1])));
    assert!(error.contains("no answer in"), "{error}");
    let error = refused(Stub::qemu().on("qqemu", |_| Reply::Bytes([vec![b'$'], vec![b'a'; 1 << 20]].concat())));
    assert!(error.contains("without an end"), "{error}");
    let bomb = || Reply::Bytes([b"$0".to_vec(), b"*~".repeat(4096)].concat());
    connection_is_given_up(Stub::qemu().on("m1000,", move |_| bomb()), "without an end");
}

#[test]
fn answer_that_comes_byte_by_byte_for_ever() {
    let drip = || Reply::Drip(b"$aaaaaaaa".to_vec(), Duration::from_millis(20));
    connection_is_given_up(Stub::qemu().on("m1000,", move |_| drip()), "no answer in");
}

#[test]
fn packet_sizes_that_cannot_be() {
    for size in ["PacketSize=0", "PacketSize=zz", "PacketSize=", "PacketSize=10000000000000000"] {
        let mut stub = Stub::qemu();
        stub.features = size.to_owned();
        assert!(refused(stub).contains("packet size that is none"), "{size}");
    }
    // As large as it likes: no more than some KiB of it are used.
    let mut stub = Stub::qemu();
    stub.features = "PacketSize=ffffffffffffffff;qXfer:features:read+".to_owned();
    let stub = stub.listen();
    let opened = stub.open().unwrap();
    let (first, _, second, ..) = read_two(&opened);
    assert!(right(&first, 0x1000) && right(&second, 0x3000));
}

#[test]
fn answers_of_another_length_or_kind() {
    only_that_read_fails(|| text("E14"));
    only_that_read_fails(|| text(""));
    only_that_read_fails(|| text("E.no such memory"));
    only_that_read_fails(|| text("nonsense"));
    only_that_read_fails(|| text("123"));
    only_that_read_fails(|| text("OK"));
    only_that_read_fails(|| Reply::Packet(vec![b'0'; 0x1002]));
    only_that_read_fails(|| Reply::Packet(vec![0xff; 0x100]));
}

#[test]
fn short_answers_are_asked_on_and_whole_in_the_end() {
    let short = |payload: &[u8]| {
        let text_of = String::from_utf8_lossy(payload);
        let (at, _) = text_of[1..].split_once(',').unwrap();
        let at = u64::from_str_radix(at, 16).unwrap();
        text(&hex(&[byte(at)]))
    };
    let stub = Stub::qemu().on("m1", short).listen();
    let (first, done, ..) = read_two(&stub.open().unwrap());
    assert!(done.is_done() && right(&first, 0x1000));
}

#[test]
fn more_answers_than_were_asked_for() {
    let twice = |at: u64| {
        let page: Vec<u8> = (at..at + 0x800).map(byte).collect();
        let packet = frame(hex(&page).as_bytes());
        Reply::Bytes([packet.clone(), packet].concat())
    };
    connection_is_given_up(Stub::qemu().on("m1000,", move |_| twice(0x1000)), "nobody asked for");
    // With a stub that does not acknowledge it is noticed by the next batch at the latest.
    let stub = Stub::plain().on("m3600,", |_| Reply::Bytes([frame(&[b'0'; 0x400]), frame(b"00")].concat())).listen();
    let opened = stub.open().unwrap();
    let (.., first) = read_two(&opened);
    std::thread::sleep(Duration::from_millis(50));
    let (.., second) = read_two(&opened);
    assert!(first.and(second).unwrap_err().to_string().contains("nobody asked for"));
}

#[test]
fn connection_that_closes_in_the_middle() {
    connection_is_given_up(Stub::qemu().on("m3000,", |_| Reply::Close).on("m1000,", |_| Reply::Close), "closed");
    let error = refused(Stub::qemu().on("qRcmd", |_| Reply::Close));
    assert!(error.contains("closed the connection"), "{error}");
    connection_is_given_up(Stub::qemu().on("m1000,", |_| text("W00")), "has exited");
}

#[test]
fn wrong_checksums() {
    // Of a stub that acknowledges, a damaged answer is asked for again.
    let mut stub = Stub::plain();
    stub.no_ack = false;
    let mut damaged = 0;
    let stub = stub
        .on("m1000,", move |_| {
            damaged += 1;
            if damaged == 1 { Reply::Bytes(b"$0000#00".to_vec()) } else { Reply::Usual }
        })
        .listen();
    let opened = stub.open().unwrap();
    let (.., result) = read_two(&opened);
    assert!(result.unwrap_err().to_string().contains("wrong checksums"));
    drop(opened);
    assert_eq!(stub.end().nacks, 3);
    connection_is_given_up(Stub::qemu().on("m1000,", |_| Reply::Bytes(b"$0000#01".to_vec())), "wrong checksums");
    connection_is_given_up(Stub::qemu().on("m1000,", |_| Reply::Bytes(b"$0000#zz".to_vec())), "no number");
}

#[test]
fn descriptions_that_go_round_or_on_for_ever() {
    let cycle = |_: &[u8]| text("l<target><xi:include href=\"target.xml\"/></target>");
    let stub = Stub::qemu().on("qXfer", cycle).listen();
    let opened = stub.open().unwrap();
    assert!(opened.notes[0].contains("included twice"), "{:?}", opened.notes);

    let mut next = 0;
    let chain = move |_: &[u8]| {
        next += 1;
        text(&format!("l<target><xi:include href=\"{next}.xml\"/></target>"))
    };
    let stub = Stub::qemu().on("qXfer", chain).listen();
    assert!(stub.open().unwrap().notes[0].contains("documents"));

    let endless = refused(Stub::qemu().on("qXfer", |_| Reply::Packet([&b"m"[..], &[b' '; 0x800]].concat())));
    assert!(endless.contains("without an end"), "{endless}");
    let nothing = refused(Stub::qemu().on("qXfer", |_| text("m")));
    assert!(nothing.contains("that is none"), "{nothing}");
    let bomb = "l<!DOCTYPE t [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><t><architecture>&b;</architecture></t>";
    assert!(Stub::qemu().on("qXfer", |_| text(bomb)).listen().open().is_ok());
}

#[test]
fn lists_and_output_without_an_end() {
    let threads = refused(Stub::qemu().on("qsThreadInfo", |_| text("m01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e")));
    assert!(threads.contains("list of vCPUs"), "{threads}");
    let output = refused(Stub::qemu().on("qRcmd", |_| Reply::Endless(frame(&[b'O'; 1][..]).to_vec())));
    assert!(output.contains("no answer in") || output.contains("without an end"), "{output}");
    let piece = format!("O{}", "20".repeat(2000));
    let output = refused(Stub::qemu().on("qRcmd", move |_| Reply::Endless(frame(piece.as_bytes()))));
    assert!(output.contains("no answer in") || output.contains("without an end"), "{output}");
}

#[test]
fn registers_of_another_width() {
    let error = refused(Stub::qemu().on("p1", |_| text("3300058000000000")));
    assert!(error.contains("register cr0 of 32 bits has 16 digits"), "{error}");
    let error = refused(Stub::qemu().on("Hg", |_| text("E22")));
    assert!(error.contains("does not select vCPU"), "{error}");
    let stub = Stub::qemu().on("p1", |_| text("xxxxxxxx")).on("p2", |_| text("E00")).listen();
    let facts = stub.open().unwrap().memory.facts().clone();
    assert!(format!("{facts:?}").contains("cr0: None") && format!("{facts:?}").contains("cr3: None"), "{facts:?}");
}

#[test]
fn mode_that_does_not_switch() {
    connection_is_given_up(Stub::qemu().on("Qqemu.PhyMemMode:1", |_| text("")), "did not switch to physical");
    connection_is_given_up(Stub::qemu().on("Qqemu.PhyMemMode:0", |_| text("E01")), "did not switch back");
}

#[test]
fn stop_that_never_comes() {
    // The packet that lets the target go is swallowed, so it never runs and never stops.
    let error = refused(Stub::plain().on("vCont;c", |_| Reply::Silence));
    assert!(error.contains("no answer in"), "{error}");
}
