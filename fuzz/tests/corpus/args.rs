//! Seeds of the targets for arguments.
//!
//! Owns: a text for each part of the grammar in `docs/target-strings.md`. Must not know: the parser.

use super::Seed;

pub(crate) fn seeds() -> Vec<Seed> {
    let texts: [Seed; 13] = [
        ("args", "name", b"qemu".to_vec()),
        ("args", "every-part", b"snapshot@0.1.0-rc.1+x:/a/b c.raw:layout=flat,cache=16MiB,partial".to_vec()),
        ("args", "no-target", b"qemu::delay=5us,cache=0x1000,metrics=yes".to_vec()),
        ("args", "drive", br"snapshot:C:\dumps\a.raw:file=D:\b.raw,size=4 KiB".to_vec()),
        ("args", "double-quotes", br#"s:"/x:y=\"z\",w\\\u{1f600}":k="a,b=c",l="""#.to_vec()),
        ("args", "single-quotes", br#"s:'C:\a "b".raw':k='x:y','odd key'=1"#.to_vec()),
        ("args", "times", b"a::a=10ms,b=5us,c=2s,d=1500ns,e=3min,f=16777215TiB".to_vec()),
        ("args", "not-ascii", "s:/größe/😀.raw:k=é".as_bytes().to_vec()),
        (
            "args",
            "many",
            (0..256)
                .map(|index| format!("{}k{index}", if index == 0 { "s::" } else { "," }))
                .collect::<String>()
                .into(),
        ),
        ("arg_specs", "one", b"vm:text!::name of the machine: its title".to_vec()),
        (
            "arg_specs",
            "layers",
            b"cache:size:0B:bytes of the page cache\ndelay:time:0s:time added to each call\nmetrics:flag:false:"
                .to_vec(),
        ),
        ("arg_specs", "choice", b"layout:choice(auto|flat|pc):auto:where memory lies\nbase:number:0x1000:".to_vec()),
        ("arg_specs", "escapes", br"file:path:C\:\\a.raw:opened first\ntitle:text:a\:b:".to_vec()),
    ];
    texts.to_vec()
}
