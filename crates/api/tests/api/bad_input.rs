//! Invalid requests: each gets a clear response with the right status, and changes nothing.

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
    let (url, json) = ("application/x-www-form-urlencoded", "application/json");
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
        // Metadata.
        ("POST", "/vm/taken/meta", url, form(&[("limit", "hv1,hv9")]), 400, "there is no node hv9; accepted are hv1"),
        ("POST", "/vm/taken/meta", url, form(&[("limit", "hv1,../hv1")]), 400, "limit"),
        ("POST", "/vm/taken/meta", url, form(&[("limit", "hv1\n")]), 400, "limit"),
        ("POST", "/vm/taken/meta", url, form(&[("selector", "warm")]), 400, "none, mem, memprov, load, vcpus, vms"),
        ("POST", "/vm/taken/meta", url, form(&[("selector", "")]), 400, "none, mem, memprov, load, vcpus, vms"),
        ("POST", "/vm/taken/meta", url, form(&[("autostart", "perhaps")]), 400, "true or false"),
        ("POST", "/vm/taken/meta", url, form(&[("migration_method", "teleport")]), 400, "none, live, shutdown"),
        ("POST", "/vm/taken/meta", url, form(&[("migration_max_downtime", "-1")]), 400, "from 1 to 60000"),
        ("POST", "/vm/taken/meta", url, form(&[("migration_max_downtime", "0")]), 400, "from 1 to 60000"),
        ("POST", "/vm/taken/meta", url, form(&[("migration_max_downtime", "99999999999999999999")]), 400, "from 1 to"),
        ("POST", "/vm/taken/meta", url, form(&[("migration_max_downtime", "1e3")]), 400, "from 1 to"),
        ("POST", "/vm/taken/meta", url, form(&[("priority", "1001")]), 400, "from -1000 to 1000"),
        ("POST", "/vm/taken/meta", url, form(&[("priority", "-99999999999999999999")]), 400, "from -1000 to 1000"),
        ("POST", "/vm/taken/meta", url, form(&[("priority", "5"), ("priority", "5")]), 400, "two values"),
        ("POST", "/vm/taken/meta", url, form(&[("user_tags", "a b")]), 400, "accepted are letters"),
        ("POST", "/vm/taken/meta", url, form(&[("user_tags", "a\n")]), 400, "accepted are letters"),
        ("POST", "/vm/taken/meta", url, form(&[("protected_tags", "-a")]), 400, "accepted are letters"),
        ("POST", "/vm/taken/meta", url, form(&[("profile", "a\x1b[31m")]), 400, "control character"),
        ("POST", "/vm/taken/meta", url, form(&[("profile", &"a".repeat(129))]), 400, "at most 128"),
        ("POST", "/vm/taken/meta", url, form(&[("node", "hv1")]), 400, "no parameter \"node\""),
        ("POST", "/vm/none/meta", url, form(&[("priority", "5")]), 404, "none"),
        ("GET", "/vm/none/meta", "", String::new(), 404, "none"),
        ("POST", "/vm/taken", url, form(&[("node", "hv1")]), 400, "none without xml"),
        ("POST", "/vm/taken", url, form(&[("xml", &fresh)]), 400, "taken"),
        ("POST", "/vm/taken", url, form(&[("xml", "<domain/>")]), 400, "xml"),
        ("POST", "/vm", url, form(&[("xml", &fresh), ("limit", "hv9")]), 400, "there is no node hv9"),
        ("POST", "/vm", url, form(&[("xml", &fresh), ("migration_max_downtime", "-5")]), 400, "from 1 to 60000"),
        ("POST", "/vm", url, form(&[("xml", &fresh), ("user_tags", "a;b")]), 400, "accepted are letters"),
        ("GET", "/vm/none/tags", "", String::new(), 404, "none"),
        ("POST", "/vm/taken/tags", url, form(&[("tag", "a")]), 400, "action is missing"),
        ("POST", "/vm/taken/tags", url, form(&[("action", "add")]), 400, "tag is missing"),
        ("POST", "/vm/taken/tags", url, form(&[("action", "paint"), ("tag", "a")]), 400, "add, remove"),
        ("POST", "/vm/taken/tags", url, form(&[("action", "add"), ("tag", "")]), 400, "accepted are letters"),
        ("POST", "/vm/taken/tags", url, form(&[("action", "add"), ("tag", "a b")]), 400, "accepted are letters"),
        ("POST", "/vm/taken/tags", url, form(&[("action", "add"), ("tag", &"a".repeat(64))]), 400, "at most 63"),
        ("POST", "/vm/taken/tags", url, form(&[("action", "remove"), ("tag", "a")]), 400, "no such tag"),
        // Moves.
        ("POST", "/vm/taken/node", url, form(&[("action", "fly")]), 400, "migrate, unmigrate, move, cancel"),
        ("POST", "/vm/taken/node", url, String::new(), 400, "action is missing"),
        ("POST", "/vm/taken/node", url, form(&[("action", "migrate"), ("node", "hv9")]), 400, "no node hv9"),
        ("POST", "/vm/taken/node", url, form(&[("action", "migrate"), ("node", "hv1")]), 400, "the VM is there"),
        ("POST", "/vm/taken/node", url, form(&[("action", "migrate"), ("node", "a/b")]), 400, "node"),
        ("POST", "/vm/taken/node", url, form(&[("action", "move")]), 400, "no node can take VM taken"),
        ("POST", "/vm/taken/node", url, form(&[("action", "unmigrate")]), 400, "it was not migrated"),
        ("POST", "/vm/taken/node", url, form(&[("action", "unmigrate"), ("node", "hv1")]), 400, "it goes home"),
        ("POST", "/vm/taken/node", url, form(&[("action", "cancel")]), 400, "needs a move that is under way"),
        ("POST", "/vm/none/node", url, form(&[("action", "migrate")]), 404, "none"),
        ("GET", "/vm/none/explain", "", String::new(), 404, "none"),
        // Nodes' states, the configuration.
        ("POST", "/node/hv1/domain-state", url, form(&[("state", "flushed")]), 400, "ready, flush"),
        ("POST", "/node/hv1/domain-state", url, String::new(), 400, "state is missing"),
        ("POST", "/node/hv1/domain-state", url, form(&[("state", "flush")]), 400, "last node that takes VMs"),
        ("POST", "/node/hv9/domain-state", url, form(&[("state", "flush")]), 404, "hv9"),
        ("PUT", "/node/hv1/policies", url, form(&[("after_proof", "never")]), 400, "inherit, recover, none"),
        ("PUT", "/node/hv1/policies", url, form(&[("power_on", "yes")]), 400, "inherit, true, false"),
        ("PUT", "/node/hv1/policies", url, form(&[("on_return", "flush")]), 400, "inherit, flushed, ready"),
        ("PUT", "/node/hv9/policies", url, form(&[("power_on", "true")]), 404, "hv9"),
        ("GET", "/node/hv9/flush-plan", "", String::new(), 404, "hv9"),
        ("PUT", "/config", url, form(&[("moves", "0")]), 400, "from 1 to 100"),
        ("PUT", "/config", url, form(&[("moves_per_source", "101")]), 400, "from 1 to 100"),
        ("PUT", "/config", url, form(&[("migration_deadline", "-1")]), 400, "from 1 to 86400"),
        ("PUT", "/config", url, form(&[("tolerate", "4")]), 400, "from 0 to 3"),
        ("GET", "/plan?memory=0", "", String::new(), 400, "from 1"),
        ("GET", "/plan?vcpus=2", "", String::new(), 400, "none without memory"),
        ("PUT", "/config", url, form(&[("selector", "none")]), 400, "mem, memprov, load, vcpus, vms"),
        ("PUT", "/config", url, form(&[("stall", "hope")]), 400, "abort, post-copy"),
        ("PUT", "/config", url, form(&[("move", "3")]), 400, "did you mean moves?"),
        // Lists for other parameters, and invalid items in lists.
        ("POST", "/vm/taken/meta", json, "{\"priority\":[5]}".to_owned(), 400, "priority: \"a list\" is not accepted"),
        ("POST", "/vm/taken/meta", json, "{\"limit\":[[\"hv1\"]]}".to_owned(), 400, "limit"),
        ("POST", "/vm/taken/meta", json, "{\"limit\":{\"hv1\":true}}".to_owned(), 400, "limit"),
        ("POST", "/vm/taken/meta", json, "{\"limit\":[null]}".to_owned(), 400, "limit"),
        ("POST", "/vm/taken/meta", json, "{\"limit\":[\"hv1,hv1\"]}".to_owned(), 400, "limit"),
        ("POST", "/vm/taken/meta", json, "{\"user_tags\":[\"\"]}".to_owned(), 400, "accepted are letters"),
        ("POST", "/vm/taken/meta", json, "{\"migration_max_downtime\":1.5}".to_owned(), 400, "from 1 to"),
        ("POST", "/vm", json, format!("{{\"xml\":[{}]}}", serde_json::json!(fresh)), 400, "xml: \"a list\""),
        // Bodies.
        ("POST", "/vm", "application/json", "{".to_owned(), 400, "JSON"),
        ("POST", "/vm", "application/json", "[1]".to_owned(), 400, "JSON"),
        ("POST", "/vm", "application/json", "{\"xml\":{\"a\":1}}".to_owned(), 400, "xml"),
        ("POST", "/vm", "text/xml", fresh.clone(), 415, "application/json"),
        ("POST", "/vm", url, "x".repeat(10 << 20), 413, "at most"),
        // Paths and methods.
        ("GET", "/nothing", "", String::new(), 404, "openapi.json"),
        ("PATCH", "/vm", "", String::new(), 405, "GET, POST"),
        ("PUT", "/status", "", String::new(), 405, "GET, POST"),
        ("POST", "/status", "", String::new(), 400, "state is missing"),
        ("POST", "/status", url, form(&[("state", "perhaps")]), 400, "true or false"),
        ("POST", "/status", url, form(&[("state", "true"), ("until", "1")]), 400, "until: 1 (1970-01-01 00:00:00 UTC)"),
        ("POST", "/status", url, form(&[("state", "true"), ("until", "9999999999999")]), 400, "a year from now"),
        ("POST", "/status", url, form(&[("state", "true"), ("duration", "0")]), 400, "from 1 to"),
        ("POST", "/status", url, form(&[("state", "false"), ("duration", "60")]), 400, "none with state=false"),
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

/// The limit also applies to a body without `Content-Length`.
#[tokio::test]
async fn a_body_without_an_end_is_refused() {
    let node = TestNode::start().await;
    let pieces =
        futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 4096])));
    let told = node.raw("POST", "/vm", "application/x-www-form-urlencoded", Body::from_stream(pieces)).await;
    assert_eq!(told.status, 413, "{told:?}");
}

#[tokio::test]
async fn requests_without_a_known_token_are_refused() {
    let node = TestNode::start().await;
    let before = node.records();
    let ask = |method: &str, path: &str, header: Option<(&str, &str)>| {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        request.body(Body::empty()).unwrap()
    };
    let (most, last) = node.token.split_at(node.token.len() - 1);
    let near = format!("{most}{}", if last == "0" { "1" } else { "0" });
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
    let bearers = ["Bearer", "bearer", "BEARER"].map(|scheme| format!("{scheme} {}", node.token));
    let bearers = bearers.iter().map(|bearer| ("authorization", bearer.as_str()));
    for header in [("x-api-key", node.token.as_str())].into_iter().chain(bearers) {
        assert_eq!(node.send(ask("GET", "/status", Some(header))).await.status, 200);
    }
    // The store has hashes only.
    let stored = node.cluster.dump().into_values().any(|data| String::from_utf8_lossy(&data).contains(&node.token));
    assert!(!stored, "a token is kept as its hash only");
    assert_eq!(node.send(ask("GET", "/", None)).await.status, 200, "the root is open");
}
