//! Seeds of the targets for GDB stubs.
//!
//! Owns: what a stub could say, from the GDB manual's appendices and QEMU's documents. Must not know: the parsers.

use super::Seed;

pub(crate) fn seeds() -> Vec<Seed> {
    let seeds: [Seed; 9] = [
        ("gdb_packet", "answers", b"+$OK#9a$E14#aa-$T02thread:01;#04$0* #7a".to_vec()),
        ("gdb_packet", "escapes", b"+$b}\x03}\x04}]}\x0a#c4%Stop:T05#99$#00".to_vec()),
        ("gdb_packet", "run-lengths", b"$0*~*~1*!*\"#48$a*'b*(#66".to_vec()),
        (
            "gdb_description",
            "x86",
            b"<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>\
              <architecture>i386:x86-64</architecture><xi:include href=\"1\"/><xi:include href=\"2\"/></target>\0\
              <feature name=\"core\"><flags id=\"f\" size=\"4\"><field name=\"\" start=\"1\" end=\"1\"/></flags>\
              <reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\"/><reg name=\"cr3\" bitsize=\"64\" type=\"int\"/></feature>\0\
              <feature name=\"more\"><reg name=\"efer\" bitsize=\"64\" regnum=\"50\"></reg></feature>"
                .to_vec(),
        ),
        (
            "gdb_description",
            "round",
            b"<target><xi:include href='1'/></target>\0<feature><xi:include href='2'/></feature>\0<xi:include href='1'/>"
                .to_vec(),
        ),
        (
            "gdb_description",
            "entities",
            b"<!DOCTYPE t [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><t><architecture>&b;</architecture>\
              <reg name='&b;' bitsize='8'/><![CDATA[<reg/>]]><!-- <reg/> --></t>"
                .to_vec(),
        ),
        (
            "gdb_layout",
            "map",
            b"<?xml version='1.0'?><memory-map><memory type='ram' start='0x20000000' length='0x1000'/>\
              <memory type='flash' start='0' length='4096'><property name='blocksize'>512</property></memory></memory-map>"
                .to_vec(),
        ),
        (
            "gdb_layout",
            "mtree",
            b"FlatView #0\r\n AS \"I/O\", root: io\r\n  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\r\n\
              FlatView #1\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n\
              \x20 0000000000000000-000000000009ffff (prio 0, ram): ram\r\n\
              \x20 00000000000c0000-00000000000c3fff (prio 1, rom): ram @00000000000c0000\r\n\
              \x20 0000000000100000-000000007fffffff (prio 0, nv-ram): ram @0000000000100000 KVM\r\n"
                .to_vec(),
        ),
        ("gdb_layout", "overlap", b"FlatView #0\n AS \"memory\", root: system\n  0-f (prio 0, ram): a\n  8-1f (prio 0, ram): b\n".to_vec()),
    ];
    seeds.to_vec()
}
