//! Texts, numbers, sizes and UUIDs in a definition, as libvirt 9.0.0 reads them.
//!
//! | what | rule | in libvirt |
//! |---|---|---|
//! | an element | has no namespace; others are ignored | its XPath expressions have no prefix |
//! | a text | all text in the element, also beside comments and in CDATA sections, white space included | XPath `string()` |
//! | an empty text | as if the element were not there | `virXPathString` |
//! | a number | white space before it, a `+`, digits; nothing after them | `virStrToLong_ullp` |
//! | a unit | `b`, `byte`, `bytes`, or one of `k m g t p e`, alone or with `iB` (powers of 1024) or with `B` (of 1000), in any case; KiB if none is given | `virScaleInteger` |
//! | a UUID | 32 hexadecimal digits, in pairs, with `-` and blanks between the pairs, and white space around | `virUUIDParse` |

use super::{BadXml, children};
use roxmltree::Node;
use uuid::Uuid;

/// White space of C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// The text of an element.
pub(super) fn string(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|n| n.text()).collect()
}

/// The text of the first child with that name, without white space around it.
pub(super) fn child_text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    children(node, name).next().map(|child| string(child).trim().to_owned())
}

/// A whole number.
pub(super) fn number(text: &str) -> Option<u64> {
    let text = text.trim_start_matches(is_space);
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.starts_with(|c: char| c.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The bytes of a unit; `None`: there is no such unit.
fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "b" | "byte" | "bytes") {
        return Some(1);
    }
    let power = "kmgtpe".find(unit.chars().next()?)?;
    let base: u64 = match &unit[1..] {
        "" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    base.checked_pow(u32::try_from(power).ok()? + 1)
}

/// A size in bytes. `what` it is, and what its unit is, for errors.
pub(super) fn size([what, its_unit]: [&'static str; 2], text: &str, unit: Option<&str>) -> Result<u64, BadXml> {
    let value = |what, value: &str, accepted: &str| BadXml::Value {
        what,
        value: value.chars().take(80).collect(),
        accepted: accepted.to_owned(),
    };
    let factor = match unit.filter(|unit| !unit.is_empty()) {
        None => 1024,
        Some(unit) => factor(unit).ok_or_else(|| {
            value(its_unit, unit, "accepted are b, KB, KiB, MB, MiB, GB, GiB, TB, TiB, PB, PiB, EB, EiB")
        })?,
    };
    let bytes = number(text).and_then(|n| n.checked_mul(factor));
    bytes
        .ok_or_else(|| value(what, text, "accepted is a whole number of less than 8 EiB, without white space after it"))
}

/// A UUID.
pub(super) fn uuid(text: &str) -> Option<Uuid> {
    let mut rest = text.trim_matches(is_space);
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        rest = rest.trim_start_matches(['-', ' ']);
        let pair = rest.get(..2).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
        rest = &rest[2..];
    }
    rest.is_empty().then(|| Uuid::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::Document;

    #[test]
    fn texts_are_what_xpath_makes_of_them() {
        for (xml, text) in [
            ("<a>12</a>", "12"),
            ("<a>1<!-- one -->2</a>", "12"),
            ("<a>1<![CDATA[2]]>&#51;</a>", "123"),
            ("<a>1<b>2</b><?x y?></a>", "12"),
            ("<a> 1 </a>", " 1 "),
            ("<a/>", ""),
        ] {
            assert_eq!(string(Document::parse(xml).unwrap().root_element()), text, "{xml}");
        }
    }

    #[test]
    fn numbers_are_those_of_strtoull() {
        for (text, is) in [
            ("12", Some(12)),
            (" \n\t12", Some(12)),
            ("\u{b}\u{c}+12", Some(12)),
            ("012", Some(12)),
            ("12 ", None),
            ("+ 12", None),
            ("++12", None),
            ("-12", None),
            ("0x12", None),
            ("1e3", None),
            ("", None),
            (" ", None),
            ("\u{a0}12", None),
            ("\u{661}", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
        ] {
            assert_eq!(number(text), is, "{text:?}");
        }
    }

    #[test]
    fn units_are_those_of_libvirt() {
        for (units, bytes) in [
            ("b B byte BYTE bytes Bytes", Some(1)),
            ("k K KiB kib KIB", Some(1 << 10)),
            ("KB kb kB", Some(1000)),
            ("m MiB mib", Some(1 << 20)),
            ("MB mb", Some(1_000_000)),
            ("G GiB", Some(1 << 30)),
            ("GB", Some(1_000_000_000)),
            ("t TIB", Some(1 << 40)),
            ("TB", Some(1_000_000_000_000)),
            ("p PiB", Some(1 << 50)),
            ("PB", Some(1_000_000_000_000_000)),
            ("e EiB", Some(1 << 60)),
            ("eb", Some(1_000_000_000_000_000_000)),
            ("x ib Ki KBytes KiBs MBB pages \u{212a} \u{e9}b", None),
        ] {
            for unit in units.split(' ') {
                assert_eq!(factor(unit), bytes, "{unit}");
            }
        }
        assert_eq!(size(["a", "b"], "3", None), Ok(3 << 10));
        assert_eq!(size(["a", "b"], "3", Some("")), Ok(3 << 10));
        assert!(size(["a", "b"], "16", Some("EiB")).is_err());
    }

    #[test]
    fn uuids_are_those_of_libvirt() {
        const IS: u128 = 0x0f6a_1d2c_5b7e_4a3f_9c8d_1e2f_3a4b_5c6d;
        for (text, is) in [
            ("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", true),
            ("0F6A1D2C5B7E4A3F9C8D1E2F3A4B5C6D", true),
            (" \n0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d\t", true),
            ("0f 6a--1d2c 5b7e-4a3f9c8d-1e2f3a4b5c6d", true),
            ("-0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", true),
            ("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d-", false),
            ("0-f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", false),
            ("0f6a1d2c\n5b7e-4a3f-9c8d-1e2f3a4b5c6d", false),
            ("{0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d}", false),
            ("urn:uuid:0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", false),
            ("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6", false),
            ("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6dd", false),
            ("\u{e9}\u{e9}", false),
            ("", false),
        ] {
            assert_eq!(uuid(text), is.then_some(Uuid::from_u128(IS)), "{text:?}");
        }
    }
}
