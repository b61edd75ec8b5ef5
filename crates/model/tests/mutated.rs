//! Fuzz tests of domain XML: mutated input is accepted or refused, and accepted input keeps all guarantees. (Those of
//! records are beside their fixtures, in `records.rs`.)
//!
//! The mutations are the same in each run, from a seed; `DROVER_MUTATIONS` is their number.

use drover_model::{
    Definition, Dice, DomainType, Epoch, Generation, VmName,
    domain::{self, Effective, Mark, devices::Devices},
};
use uuid::Uuid;

const XML: &str = "<domain type='kvm' id='3'><!-- a --><name>web</name>\
    <uuid>00000000-0000-0000-0000-000000000001</uuid>\
    <memory unit='MiB'>512</memory><currentMemory>1</currentMemory><vcpu current='1'>2</vcpu><os><type \
    arch='x86_64'>hvm</type><kernel>/k</kernel></os><metadata><d:vm xmlns:d='urn:x' epoch='3'/></metadata><cpu \
    mode='host-model'/><devices><disk type='file'><source file='/d/a'/><target dev='vda'/></disk><interface \
    type='bridge'><source bridge='br0'/></interface><serial type='pty'><log \
    file='/l'/></serial><![CDATA[x]]>&amp;</devices></domain>";

/// Pieces with a meaning.
const WORDS: &[&str] = &[
    "<name>",
    "</name>",
    "<domain>",
    "</domain>",
    "<memory unit='EiB'>",
    "18446744073709551615",
    "-1",
    "&#x0;",
    "&lt;",
    "\u{fffd}",
    "\"",
    "'",
    "<!--",
    "]]>",
    "<vcpu/>",
    "\u{202e}",
];

fn times() -> u64 {
    std::env::var("DROVER_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(4000)
}

#[test]
fn a_mutated_domain_is_refused_or_keeps_its_name_and_identity() {
    let (mut dice, mut accepted) = (Dice::new(1), 0);
    for _ in 0..times() {
        let bytes = dice.mutate(XML.as_bytes(), WORDS);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // Details for users are read in any case.
        let _ = (Devices::read(&text), domain::demand(&text), Mark::read(&text));
        let Ok(definition) = Definition::parse(&text, Uuid::from_u128(9)) else { continue };
        accepted += 1;
        let again = Definition::parse(&definition.xml, Uuid::nil()).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!((&again.name, again.uuid), (&definition.name, definition.uuid), "{text}");
        let other = VmName::new("other").unwrap();
        let renamed = definition.renamed(&other).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!((&renamed.name, renamed.uuid), (&other, definition.uuid), "{text}");
        let mark = Mark { epoch: Epoch(7), generation: Generation(8) };
        let effective =
            Effective { domain_type: DomainType::Qemu, mark, console_log: Some("/a'b&c"), nvram: Some("/d'e&f") };
        let rendered = effective.render(&definition.xml).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(Mark::read(&rendered), Some(mark), "{rendered}");
    }
    assert!(accepted > times() / 100, "only {accepted} were accepted: the mutations are too wild to say much");
}
