//! Downloads from a server in this process that does what servers do on bad days.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use memflow_windows_images::{Architecture, Description, OffsetTable};

use super::*;

const GUID: &str = "0123456789ABCDEF0123456789ABCDEF";

/// A file of symbols, and what it is asked for by.
fn symbols(guid: &str) -> (Vec<u8>, CodeView) {
    let offsets = OffsetTable::embedded().unwrap().build("10.0.19041").unwrap().clone();
    let mut description = Description::new(5, Architecture::X64, offsets.clone());
    description.guid = Some(guid.to_owned());
    let windows = description.build().unwrap();
    let wanted =
        CodeView { name: windows.truth.kernel.pdb.clone(), guid: GUID.to_owned(), age: windows.truth.kernel.age };
    (windows.symbol_file(&offsets), wanted)
}

/// What a server was asked: path, and where the range begins.
type Asked = (String, Option<usize>);
/// What it does with a connection.
type Answer = dyn Fn(usize, &Asked, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// A server; its address, and what it is asked.
fn serve(answer: Arc<Answer>) -> (String, mpsc::Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/symbols", listener.local_addr().unwrap());
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let (answer, sender) = (answer.clone(), sender.clone());
            thread::spawn(move || {
                let mut stream = stream;
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
                let range = lines.take_while(|line| !line.is_empty()).find_map(|line| {
                    let range =
                        line.to_ascii_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').to_owned();
                    range.parse().ok()
                });
                let _ = sender.send((path.clone(), range));
                let _ = answer(number, &(path, range), &mut stream);
            });
        }
    });
    (address, asked)
}

/// Answers with bytes, or the part of them that was asked for.
fn send(stream: &mut TcpStream, bytes: &[u8], from: Option<usize>) -> io::Result<()> {
    match from {
        None => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len())?,
        Some(from) => write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            bytes.len() - 1,
            bytes.len(),
            bytes.len() - from
        )?,
    }
    stream.write_all(&bytes[from.unwrap_or(0)..])
}

fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        answer: Duration::from_millis(500),
        bytes: Duration::from_millis(500),
        request: Duration::from_secs(5),
        file: 1 << 20,
    }
}

/// A store in a new folder, and the place of the file in it.
fn place(wanted: &CodeView) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = store::place(folder.path(), wanted);
    (folder, path)
}

#[test]
fn file_comes_into_its_place_and_progress_is_told() {
    let (bytes, wanted) = symbols(GUID);
    let sent = bytes.clone();
    let (server, asked) = serve(Arc::new(move |_, asked, stream| send(stream, &sent, asked.1)));
    let (_folder, path) = place(&wanted);
    let last = AtomicU64::new(0);
    let progress = |stage: &'static str, done: u64, total: u64| {
        assert_eq!((stage, total), (STAGE, bytes.len() as u64));
        last.fetch_max(done, Ordering::Relaxed);
        ControlFlow::Continue(())
    };
    let pdb = fetch(&server, &wanted, &path, &limits(), Some(&progress)).unwrap();
    assert_eq!(pdb.numbers.get("_EPROCESS.Peb"), Some(&0x550));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert!(!part_of(&path).exists());
    assert_eq!(last.into_inner(), bytes.len() as u64);
    assert_eq!(asked.recv().unwrap(), (format!("/symbols/ntkrnlmp.pdb/{GUID}1/ntkrnlmp.pdb"), None));
}

#[test]
fn connection_that_ends_in_the_middle_is_gone_on_with() {
    let (bytes, wanted) = symbols(GUID);
    let third = bytes.len() / 3;
    let sent = bytes.clone();
    let (server, asked) = serve(Arc::new(move |_, asked, stream| {
        let from = asked.1.unwrap_or(0);
        let mut answer = Vec::new();
        write!(answer, "HTTP/1.1 {}\r\n", if from == 0 { "200 OK" } else { "206 Partial Content" })?;
        write!(answer, "content-range: bytes {from}-{}/{}\r\n", sent.len() - 1, sent.len())?;
        write!(answer, "content-length: {}\r\n\r\n", sent.len() - from)?;
        answer.extend(&sent[from..(from + third).min(sent.len())]);
        stream.write_all(&answer)
    }));
    let (_folder, path) = place(&wanted);
    fetch(&server, &wanted, &path, &limits(), None).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let ranges: Vec<Option<usize>> = asked.try_iter().map(|asked| asked.1).collect();
    assert_eq!(ranges[..3], [None, Some(third), Some(2 * third)]);
}

#[test]
fn what_an_earlier_run_kept_is_gone_on_with_unless_it_is_wrong() {
    let (bytes, wanted) = symbols(GUID);
    let half = bytes.len() / 2;
    let sent = bytes.clone();
    let (server, asked) = serve(Arc::new(move |_, asked, stream| {
        if asked.1.is_some_and(|from| from >= sent.len()) {
            return stream.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\ncontent-length: 0\r\n\r\n");
        }
        send(stream, &sent, asked.1)
    }));
    let longer = [&bytes[..], b"more"].concat();
    let damaged = vec![0xff; half];
    for (kept, ranges) in [
        (&bytes[..half], vec![Some(half)]),
        (&bytes[..], vec![Some(bytes.len())]),
        (&damaged[..], vec![Some(half), None]),
        (&vec![0xff; longer.len()][..], vec![Some(longer.len()), None]),
    ] {
        let (_folder, path) = place(&wanted);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(part_of(&path), kept).unwrap();
        fetch(&server, &wanted, &path, &limits(), None).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(asked.try_iter().map(|asked| asked.1).collect::<Vec<_>>(), ranges);
    }
}

#[test]
fn server_without_ranges_starts_anew() {
    let (bytes, wanted) = symbols(GUID);
    let sent = bytes.clone();
    let (server, _asked) = serve(Arc::new(move |_, _, stream| send(stream, &sent, None)));
    let (_folder, path) = place(&wanted);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(part_of(&path), &bytes[..1000]).unwrap();
    fetch(&server, &wanted, &path, &limits(), None).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn redirect_is_followed_a_few_times() {
    let (bytes, wanted) = symbols(GUID);
    let sent = bytes.clone();
    let (server, _asked) = serve(Arc::new(move |_, (path, range), stream| {
        if path.starts_with("/symbols") {
            return write!(stream, "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n");
        }
        send(stream, &sent, *range)
    }));
    let (_folder, path) = place(&wanted);
    fetch(&server, &wanted, &path, &limits(), None).unwrap();
    assert!(path.exists());
    let (server, _asked) = serve(Arc::new(|_, _, stream| {
        write!(stream, "HTTP/1.1 302 Found\r\nlocation: /symbols/again\r\ncontent-length: 0\r\n\r\n")
    }));
    let (_folder, path) = place(&wanted);
    let failure = fetch(&server, &wanted, &path, &limits(), None).unwrap_err();
    assert!(matches!(failure, Failure::Connection(_)), "{failure}");
    assert!(!path.exists() && !part_of(&path).exists());
}

#[test]
fn answers_that_are_no_file_leave_nothing() {
    let (_, wanted) = symbols(GUID);
    let (other, _) = symbols("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF");
    let good = symbols(GUID).0;
    let truncated = good[..good.len() - 0x2000].to_vec();
    let status = |line: &'static str| -> Arc<Answer> {
        Arc::new(move |_, _, stream| write!(stream, "HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n"))
    };
    let whole = |bytes: Vec<u8>| -> Arc<Answer> { Arc::new(move |_, _, stream| send(stream, &bytes, None)) };
    let cases: [(Arc<Answer>, &str); 7] = [
        (status("404 Not Found"), "the server has no symbols of this build"),
        (status("503 Service Unavailable"), "the server answers with status 503"),
        (whole(other), "the server sent something else: symbols of another build: expected 0123"),
        (whole(truncated), "the server sent something else: no file of symbols"),
        (whole(b"<html>sign in first</html>".to_vec()), "the server sent something else: no file of symbols"),
        (Arc::new(|_, _, stream| write!(stream, "no protocol at all\r\n\r\n")), ""),
        (
            Arc::new(|_, _, stream| write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")),
            "more than 1 MiB, which no file of symbols has",
        ),
    ];
    for (answer, expected) in cases {
        let (server, _asked) = serve(answer);
        let (_folder, path) = place(&wanted);
        let failure = fetch(&server, &wanted, &path, &limits(), None).unwrap_err().to_string();
        assert!(failure.starts_with(expected), "{failure}");
        assert!(!path.exists() && !part_of(&path).exists(), "{failure}");
    }
}

#[test]
fn body_without_an_end_is_cut() {
    let (_, wanted) = symbols(GUID);
    let (server, _asked) = serve(Arc::new(|_, _, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
        loop {
            stream.write_all(&[0x55; 4096])?;
        }
    }));
    let (_folder, path) = place(&wanted);
    let failure = fetch(&server, &wanted, &path, &limits(), None).unwrap_err();
    assert!(matches!(failure, Failure::TooLarge(_)), "{failure}");
    assert!(!part_of(&path).exists());
}

#[test]
fn server_that_is_slow_ends_in_time_and_keeps_what_came() {
    let (bytes, wanted) = symbols(GUID);
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let sent = bytes.clone();
    let (server, _asked) = serve(Arc::new(move |_, asked, stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        if asked.1.is_none() {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", sent.len())?;
            stream.write_all(&sent[..1000])?;
        }
        // Nothing more, and the connection stays.
        thread::sleep(Duration::from_secs(20));
        Ok(())
    }));
    let (_folder, path) = place(&wanted);
    let started = Instant::now();
    let failure = fetch(&server, &wanted, &path, &limits(), None).unwrap_err();
    assert!(matches!(failure, Failure::Incomplete(1000, _)), "{failure}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(requests.load(Ordering::Relaxed) <= 4);
    assert_eq!(std::fs::read(part_of(&path)).unwrap(), bytes[..1000]);
    // A server that does not answer at all.
    let (server, _asked) = serve(Arc::new(|_, _, _| {
        thread::sleep(Duration::from_secs(20));
        Ok(())
    }));
    let (_folder, path) = place(&wanted);
    let failure = fetch(&server, &wanted, &path, &limits(), None).unwrap_err();
    assert!(matches!(failure, Failure::Connection(_)), "{failure}");
    assert!(!part_of(&path).exists());
}

#[test]
fn caller_can_stop_and_go_on_later() {
    let (bytes, wanted) = symbols(GUID);
    let sent = bytes.clone();
    let (server, asked) = serve(Arc::new(move |_, asked, stream| send(stream, &sent, asked.1)));
    let (_folder, path) = place(&wanted);
    let stop =
        |_: &'static str, done: u64, _: u64| if done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let failure = fetch(&server, &wanted, &path, &limits(), Some(&stop)).unwrap_err();
    assert!(matches!(failure, Failure::Cancelled), "{failure}");
    let kept = std::fs::metadata(part_of(&path)).unwrap().len() as usize;
    assert!(kept > 0);
    fetch(&server, &wanted, &path, &limits(), None).unwrap();
    let ranges: Vec<Option<usize>> = asked.try_iter().map(|asked| asked.1).collect();
    assert_eq!(ranges, [None, Some(kept)]);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn two_programs_do_not_write_one_file() {
    let (bytes, wanted) = symbols(GUID);
    let (server, _asked) = serve(Arc::new(move |_, asked, stream| send(stream, &bytes, asked.1)));
    let (_folder, path) = place(&wanted);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let other = File::create(part_of(&path)).unwrap();
    other.lock().unwrap();
    let failure = fetch(&server, &wanted, &path, &limits(), None).unwrap_err();
    assert!(matches!(failure, Failure::Busy(_)), "{failure}");
    drop(other);
    fetch(&server, &wanted, &path, &limits(), None).unwrap();
}

#[test]
fn ranges_are_read_as_servers_write_them() {
    assert_eq!(starts_at("bytes 100-199/200"), Some(100));
    assert_eq!(starts_at("bytes */200"), None);
    assert_eq!(starts_at(""), None);
}
