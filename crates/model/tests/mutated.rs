//! Fuzz tests of domain XML and records: mutated input is accepted or refused, and accepted input keeps all guarantees.
//!
//! The mutations are the same in each run, from a seed; `DROVER_MUTATIONS` is their number.

use drover_model::{
    Arrival, Claim, Definition, Dice, DomainType, Epoch, Fault, Generation, NodeName, NodeRecord, NodeStatus, Primary,
    RecordKind, Stored, Token, Version, VmName, VmRecord, VmStatus,
    domain::{self, Effective, Mark, devices::Devices},
};
use uuid::Uuid;

const XML: &str = "<domain type='kvm' id='3'><!-- a --><name>web</name><uuid>00000000-0000-0000-0000-000000000001</uuid>\
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
    "{",
    "}",
    "null",
    "\"schema\":2",
    "[]",
    "1e999",
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

/// A stored record can be read, and is the same after encoding; or it is refused, and can be salvaged.
fn almost<T: RecordKind>(key: &T::Key, document: &str) {
    let good = Stored::<T>::decode(document.as_bytes(), Version(1));
    assert!(good.is_ok(), "{document}: {good:?}");
    let mut dice = Dice::new(2);
    for _ in 0..times() / 4 {
        let bytes = dice.mutate(document.as_bytes(), WORDS);
        match Stored::<T>::decode(&bytes, Version(1)) {
            Ok(stored) => {
                let written = stored.replaced_by(&stored.value).unwrap_or_default();
                let again = Stored::<T>::decode(&written, Version(1)).map(|again| again.value);
                assert_eq!(again.as_ref(), Ok(&stored.value), "{}", String::from_utf8_lossy(&bytes));
            }
            Err(unreadable) => {
                assert!(unreadable.to_string().starts_with("unreadable"), "{unreadable}");
                T::salvage(key, &unreadable.document);
            }
        }
    }
}

#[test]
fn a_mutated_record_is_read_or_refused() {
    let (uuid, node) = (Uuid::from_u128(1), NodeName::new("hv1").unwrap());
    almost::<VmRecord>(
        &uuid,
        r#"{"schema":1,"uuid":"00000000-0000-0000-0000-000000000001","name":"web","state":{"is":"shutdown","timeout_s":9,
        "then":"stop"},"node":"hv1","last_node":"hv2","xml":"<domain/>","generation":2,"meta":{"priority":1}}"#,
    );
    almost::<Claim>(&uuid, r#"{"schema":1,"node":"hv1","epoch":3,"to":"hv2"}"#);
    almost::<Arrival>(&uuid, r#"{"schema":1,"node":"hv1","of":3,"refused":"no room"}"#);
    almost::<VmStatus>(
        &uuid,
        r#"{"schema":1,"node":"hv1","epoch":1,"run":"running","since":5,"vnc":["::",5900],"progress":{"total":1,"sent":1,
        "left":0,"rate":1,"elapsed_ms":1},"move_failure":{"to":"hv2","reason":"x","count":1,"told":1}}"#,
    );
    almost::<NodeRecord>(
        &node,
        r#"{"schema":1,"name":"hv1","machine":"m","role":"coordinator","api":"a","domain_state":"flush"}"#,
    );
    almost::<NodeStatus>(
        &node,
        r#"{"schema":1,"daemon":"run","version":"","kernel":"","os":"","arch":"","cpus":4,"memory_total":9,"memory_free":1,
        "load":0.5,"domains":[],"updated":1,"drain":{"left":1,"moving":1,"blocked":[["web","x"]]}}"#,
    );
    almost::<Primary>(
        &drover_model::Only,
        r#"{"schema":1,"epoch":3,"holder":"hv1","suspects":["hv1"],"handoff":{"to":"hv2","phase":"lock"}}"#,
    );
    almost::<Token>(&"t".parse().unwrap(), r#"{"schema":1,"name":"t","sha256":"00","role":"admin","created":1}"#);
    almost::<Fault>(
        &"f".to_owned(),
        r#"{"schema":1,"id":"f","message":"m","health_delta":9,"first_reported":1,"last_reported":2}"#,
    );
}
