//! Edits of an XML text by ranges: the rest of the text is unchanged.

use roxmltree::Node;
use std::ops::Range;

/// Replaces the given ranges, which must not overlap, by the given texts.
pub(super) fn apply(xml: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| (range.start, range.end));
    let (mut out, mut at) = (String::with_capacity(xml.len() + 512), 0);
    for (range, text) in edits {
        out.push_str(xml.get(at..range.start).unwrap_or(""));
        out.push_str(&text);
        at = range.end;
    }
    out.push_str(xml.get(at..).unwrap_or(""));
    out
}

/// The range between an element's tags. Only for elements that are not self-closing: see [`append`].
pub(super) fn inner(xml: &str, element: Node<'_, '_>) -> Range<usize> {
    let range = element.range();
    match (element.first_child(), element.last_child()) {
        (Some(first), Some(last)) => first.range().start..last.range().end,
        _ => {
            let close = xml.get(range.clone()).and_then(|t| t.rfind("</")).map_or(range.end, |at| range.start + at);
            close..close
        }
    }
}

/// The edit that appends `text` to an element's content, opening a self-closing element if necessary.
pub(super) fn append(xml: &str, element: Node<'_, '_>, text: &str) -> (Range<usize>, String) {
    let range = element.range();
    let source = xml.get(range.clone()).unwrap_or("");
    if element.has_children() || !source.ends_with("/>") {
        let end = inner(xml, element).end;
        return (end..end, text.to_owned());
    }
    let name: String = source.chars().skip(1).take_while(|c| !c.is_whitespace() && *c != '/' && *c != '>').collect();
    (range.end - 2..range.end, format!(">{text}</{name}>"))
}

/// Escapes a text as an attribute's value in single quotes.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::Document;

    fn appended(xml: &str) -> String {
        let document = Document::parse(xml).unwrap();
        let element = document.descendants().find(|n| n.has_tag_name("b")).unwrap();
        apply(xml, vec![append(xml, element, "<x/>")])
    }

    #[test]
    fn appends_to_every_form_of_element() {
        assert_eq!(appended("<a><b/></a>"), "<a><b><x/></b></a>");
        assert_eq!(appended("<a><b c='/'/></a>"), "<a><b c='/'><x/></b></a>");
        assert_eq!(appended("<a><b ></b ></a>"), "<a><b ><x/></b ></a>");
        assert_eq!(appended("<a><b> <c/></b></a>"), "<a><b> <c/><x/></b></a>");
    }

    #[test]
    fn several_edits_at_once() {
        assert_eq!(apply("abcdef", vec![(4..5, "E".into()), (0..1, String::new()), (2..2, "-".into())]), "b-cdEf");
    }
}
