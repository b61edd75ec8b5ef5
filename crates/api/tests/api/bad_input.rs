//! Whatever is sent that cannot be accepted: a clear answer with the right status, and nothing is changed.

use crate::support::{TestNode, xml};
use axum::{body::Body, http::Request};

const UUID: &str = "11111111-2222-4333-8444-555555555555";

/// Domain XMLs that are refused, and what the answer must say.
fn bad_definitions() -> Vec<(String, &'static str)> {
    let good = || xml("web", "");
    let with = |from: &str, to: &str| good().replace(from, to);
    let bomb =
        "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;'>]>";
    vec![
        (String::new(), "xml"),
        ("no xml at all".to_owned(), "xml"),
        ("<domain><name>x</name>".to_owned(), "xml"),
        (format!("{bomb}{}", with("web", "&c;")), "DTD"),
        ("<a>".repeat(100_000), "xml"),
        ("<network/>".to_owned(), "domain"),
        (with("<name>web</name>", ""), "name"),
        (with("<name>web</name>", "<name>a</name><name>b</name>"), "name"),
        (with(">web<", "><"), "name"),
        (with(">web<", ">a/b<"), "a/b"),
        (with(">web<", ">..<"), ".."),
        (with(">web<", ">a'b<"), "a'b"),
        (with(">web<", ">a&#10;b<"), "name"),
        (with(">web<", &format!(">{}<", "x".repeat(64))), "63"),
        (with("<vcpu>", "<uuid>no-uuid</uuid><vcpu>"), "no-uuid"),
        (with("<memory unit='MiB'>128</memory>", ""), "memory"),
        (with(">128<", ">0<"), "memory"),
        (with(">128<", ">-5<"), "memory"),
        (with(">128<", ">99999999999999999999<"), "memory"),
        (with("unit='MiB'", "unit='apples'"), "apples"),
        (with("<vcpu>1</vcpu>", "<vcpu>0</vcpu>"), "vcpu"),
        (with("<vcpu>1</vcpu>", "<vcpu>many</vcpu>"), "many"),
    ]
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let node = TestNode::start().await;
    assert_eq!(node.define("taken", UUID).await.status, 200);
    let before = node.records();
    for (xml, says) in bad_definitions() {
        let shown: String = xml.chars().take(150).collect();
        for (method, path) in [("POST", "/vm"), ("PUT", "/vm/taken")] {
            let told = node.form(method, path, &[("xml", &xml)]).await;
            assert_eq!(told.status, 400, "{method} {shown}: {told:?}");
            let answer = told.json();
            assert_eq!(answer["field"], "xml", "{method} {shown}: {told:?}");
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains(says), "{method} {shown}: {message}");
            assert!(message.len() < 1000, "an answer that a person can read: {message}");
            assert_eq!(node.records(), before, "{method} {shown} changed something");
        }
    }
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let node = TestNode::start().await;
    let other = "22222222-2222-4333-8444-555555555555";
    assert_eq!(node.define("taken", UUID).await.status, 200);
    let before = node.records();
    let fresh = xml("fresh", "");
    let form = |fields: &[(&str, &str)]| form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let url = "application/x-www-form-urlencoded";
    let cases: Vec<(&str, &str, &str, String, u16, &str)> = vec![
        // Duplicates.
        ("POST", "/vm", url, form(&[("xml", &xml("taken", other))]), 409, "named taken"),
        ("POST", "/vm", url, form(&[("xml", &xml("new", UUID))]), 409, UUID),
        // Unknown nodes.
        ("POST", "/vm", url, form(&[("xml", &fresh), ("node", "hv9")]), 400, "accepted are hv1"),
        ("POST", "/vm", url, form(&[("xml", &fresh), ("node", "../hv1")]), 400, "node"),
        ("GET", "/node/hv9", "", String::new(), 404, "hv9"),
        ("GET", "/vm?node=a/b", "", String::new(), 400, "node"),
        // Parameters.
        ("POST", "/vm", url, form(&[("xml", &fresh), ("colour", "red")]), 400, "colour"),
        ("POST", "/vm", url, form(&[("xml", &fresh), ("nod", "hv1")]), 400, "did you mean node?"),
        ("POST", "/vm", url, form(&[("xml", &fresh), ("xml", &fresh)]), 400, "two values"),
        ("POST", "/vm", url, String::new(), 400, "xml is missing"),
        ("POST", "/vm/taken/state", url, form(&[("state", "fly")]), 400, "start, shutdown, stop, restart, disable"),
        ("POST", "/vm/taken/state", url, form(&[("state", "shutdown"), ("timeout", "-1")]), 400, "timeout"),
        ("POST", "/vm/taken/state", url, form(&[("state", "shutdown"), ("timeout", "9999999")]), 400, "from 1 to"),
        ("POST", "/vm/taken/state", url, form(&[("state", "start"), ("wait", "perhaps")]), 400, "true or false"),
        ("POST", "/vm/taken/state", url, form(&[("state", "restart")]), 400, "stop"),
        ("GET", "/vm?limit=%5B", "", String::new(), 400, "regular expression"),
        ("GET", "/vm?limit=(a%7B1000%7D)%7B1000%7D", "", String::new(), 400, "regular expression"),
        ("GET", "/vm?state=flying", "", String::new(), 400, "state"),
        ("GET", "/vm/taken/console?lines=all", "", String::new(), 400, "lines"),
        ("PUT", "/vm/taken", url, form(&[("xml", &xml("other", ""))]), 400, "rename"),
        ("PUT", "/vm/taken", url, form(&[("xml", &xml("taken", other))]), 400, "keeps its UUID"),
        ("PUT", "/vm/taken", url, form(&[("xml", &xml("taken", "")), ("version", "7")]), 409, "somebody else"),
        // Names.
        ("POST", "/vm/taken/rename", url, form(&[("new_name", "../x")]), 400, "new_name"),
        ("POST", "/vm/taken/rename", url, form(&[("new_name", "a\"b")]), 400, "new_name"),
        ("POST", "/vm/taken/rename", url, form(&[("new_name", "a\nb")]), 400, "new_name"),
        ("POST", "/vm/taken/rename", url, form(&[("new_name", "")]), 400, "new_name"),
        ("POST", "/token", url, form(&[("name", "a/b")]), 400, "name"),
        ("GET", "/vm/..%2F..%2Ftokens", "", String::new(), 404, "no VM"),
        ("GET", "/vm/%00", "", String::new(), 404, "no VM"),
        ("DELETE", "/vm/none", "", String::new(), 404, "none"),
        // Bodies.
        ("POST", "/vm", "application/json", "{".to_owned(), 400, "JSON"),
        ("POST", "/vm", "application/json", "[1]".to_owned(), 400, "JSON"),
        ("POST", "/vm", "application/json", "{\"xml\":{\"a\":1}}".to_owned(), 400, "xml"),
        ("POST", "/vm", "text/xml", fresh.clone(), 415, "application/json"),
        ("POST", "/vm", url, "x".repeat(10 << 20), 413, "at most"),
        // Places.
        ("GET", "/nothing", "", String::new(), 404, "openapi.json"),
        ("PATCH", "/vm", "", String::new(), 405, "GET, POST"),
        ("POST", "/status", "", String::new(), 405, "GET"),
    ];
    for (method, path, kind, body, status, says) in cases {
        let shown: String = body.chars().take(100).collect();
        let told = node.raw(method, path, kind, body).await;
        assert_eq!(told.status, status, "{method} {path} {shown}: {told:?}");
        let message = told.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(says), "{method} {path} {shown}: {message}");
        assert!(message.len() < 1000, "{message}");
        assert_eq!(node.records(), before, "{method} {path} {shown} changed something");
    }
}

/// A body without an announced length is cut off too.
#[tokio::test]
async fn a_body_without_an_end_is_refused() {
    let node = TestNode::start().await;
    let pieces =
        futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 4096])));
    let told = node.raw("POST", "/vm", "application/x-www-form-urlencoded", Body::from_stream(pieces)).await;
    assert_eq!(told.status, 413, "{told:?}");
}

#[tokio::test]
async fn without_a_known_token_there_is_nothing() {
    let node = TestNode::start().await;
    let before = node.records();
    let ask = |method: &str, path: &str, header: Option<(&str, &str)>| {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.body(Body::empty()).unwrap()
    };
    let near = format!("{}0", &node.token[..node.token.len() - 1]);
    for endpoint in drover_api::endpoint::ENDPOINTS.iter().filter(|e| e.token) {
        let path = endpoint.path.replace("{vm}", "x").replace("{node}", "hv1").replace("{token}", "test");
        for header in
            [None, Some(("x-api-key", "")), Some(("x-api-key", near.as_str())), Some(("authorization", "Basic x"))]
        {
            let told = node.send(ask(endpoint.method.as_str(), &path, header)).await;
            assert_eq!(told.status, 401, "{} {path} {header:?}: {told:?}", endpoint.method);
            assert!(!told.text.contains(&node.token));
        }
    }
    assert_eq!(node.records(), before);
    let bearer = format!("Bearer {}", node.token);
    for header in [("x-api-key", node.token.as_str()), ("authorization", bearer.as_str())] {
        assert_eq!(node.send(ask("GET", "/status", Some(header))).await.status, 200);
    }
    // What is stored is no token.
    let stored = node.cluster.dump().into_values().any(|data| String::from_utf8_lossy(&data).contains(&node.token));
    assert!(!stored, "a token is kept as its hash only");
    assert_eq!(node.send(ask("GET", "/", None)).await.status, 200, "the root is open");
}
