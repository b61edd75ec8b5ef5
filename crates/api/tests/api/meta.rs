//! VM metadata, and the cluster's configuration.

use crate::support::{TestNode, xml};
use serde_json::{Value, json};

const UUID: &str = "11111111-2222-4333-8444-555555555555";
const OTHER: &str = "22222222-2222-4333-8444-555555555555";

/// Every field of the metadata: as a parameter, and as the API then shows it.
fn parts() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let tag = |name: &str, protected: bool| json!([{"name": name, "type": "user", "protected": protected}]);
    vec![
        ("limit", "hv1", "node_limit", json!(["hv1"])),
        ("selector", "vms", "node_selector", json!("vms")),
        ("autostart", "true", "node_autostart", json!(true)),
        ("migration_method", "live", "migration_method", json!("live")),
        ("migration_max_downtime", "50", "migration_max_downtime", json!(50)),
        ("priority", "-7", "priority", json!(-7)),
        ("resume_after_io_error", "true", "resume_after_io_error", json!(true)),
        ("profile", "small", "profile", json!("small")),
        ("user_tags", "a", "tags", tag("a", false)),
    ]
}

fn expect(shown: &Value, wanted: &[(&str, Value)], after: &str) {
    for (key, value) in wanted {
        assert_eq!(shown[*key], *value, "{key}, after {after}: {shown}");
    }
}

#[tokio::test]
async fn fields_that_are_not_given_are_not_reset() {
    let node = TestNode::start().await;
    assert_eq!(node.define("web", UUID).await.status, 200);
    let plain = [
        ("node_limit", json!([])),
        ("node_selector", json!("none")),
        ("node_autostart", json!(false)),
        ("migration_method", json!("none")),
        ("migration_max_downtime", json!(300)),
        ("priority", json!(0)),
        ("resume_after_io_error", json!(false)),
        ("profile", json!("")),
        ("tags", json!([])),
    ];
    expect(&node.get("/vm/web/meta").await.json(), &plain, "a definition with nothing else");
    // One after the other: earlier changes are kept.
    let mut given: Vec<(&str, Value)> = Vec::new();
    for (n, (name, value, key, shown)) in parts().into_iter().enumerate() {
        // Both paths do the same.
        let path = if n % 2 == 0 { "/vm/web/meta" } else { "/vm/web" };
        let told = node.form("POST", path, &[(name, value)]).await;
        assert_eq!(told.status, 200, "{name}: {told:?}");
        given.push((key, shown));
        expect(&node.get("/vm/web/meta").await.json(), &given, name);
    }
    expect(&node.get("/vm/web").await.json(), &given, "all, in the VM itself");
    // Metadata survives changes of the definition, the state and the name.
    let bigger = xml("web", UUID).replace(">128<", ">256<");
    assert_eq!(node.form("PUT", "/vm/web", &[("xml", &bigger)]).await.status, 200);
    let told = node.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let told = node.form("POST", "/vm/web/state", &[("state", "stop"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(node.form("POST", "/vm/web/rename", &[("new_name", "shop")]).await.status, 200);
    assert_eq!(node.form("POST", "/vm/shop/meta", &[]).await.status, 200);
    expect(&node.get("/vm/shop/meta").await.json(), &given, "all sorts of changes");
    // Fields given as empty are cleared, and no others.
    let told = node.form("POST", "/vm/shop/meta", &[("limit", ""), ("selector", "none"), ("autostart", "no")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let (mut cleared, kept) = (plain[..3].to_vec(), given[3..].to_vec());
    cleared.extend(kept);
    expect(&node.get("/vm/shop/meta").await.json(), &cleared, "clearing");
}

#[tokio::test]
async fn a_vm_is_defined_with_its_metadata() {
    let node = TestNode::start().await;
    let definition = xml("web", UUID);
    let mut fields = vec![("xml", definition.as_str())];
    fields.extend(parts().into_iter().map(|(name, value, ..)| (name, value)));
    let told = node.form("POST", "/vm", &fields).await;
    assert_eq!(told.status, 200, "{told:?}");
    let given: Vec<(&str, Value)> = parts().into_iter().map(|(.., key, shown)| (key, shown)).collect();
    expect(&node.get("/vm/web/meta").await.json(), &given, "its definition");
}

#[tokio::test]
async fn a_definition_that_the_hypervisor_does_not_accept_is_not_stored() {
    let node = TestNode::start().await;
    let bad = xml("web", UUID).replace("<devices>", "<os><type machine='none-such'>hvm</type></os><devices>");
    for path in ["/vm", "/vm/web"] {
        let told = node.form("POST", path, &[("xml", bad.as_str())]).await;
        assert_eq!(told.status, 400, "{told:?}");
        let message = told.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("does not accept the definition of VM web: unsupported configuration"), "{message}");
        assert_eq!(node.get("/vm").await.json(), json!([]), "nothing was changed");
    }
    assert_eq!(node.form("POST", "/vm", &[("xml", bad.as_str()), ("no_check", "true")]).await.status, 200);
    let good = [("xml", &*xml("web", UUID))];
    assert_eq!(node.form("PUT", "/vm/web", &good).await.status, 200);
    for (fields, status) in [
        (vec![("xml", bad.as_str()), ("dry_run", "true")], 400),
        (vec![("xml", bad.as_str())], 400),
        (vec![("xml", bad.as_str()), ("no_check", "true")], 200),
    ] {
        assert_eq!(node.form("PUT", "/vm/web", &fields).await.status, status, "{fields:?}");
    }
    let told = node.form("POST", "/vm/web", &[("no_check", "true")]).await;
    assert_eq!(told.status, 400, "{told:?}");
}

#[tokio::test]
async fn a_mac_address_belongs_to_one_vm() {
    let node = TestNode::start().await;
    let with = |name, uuid, last: &str| {
        let mac = format!("<devices><interface type='user'><mac address='52:54:00:00:00:{last}'/></interface>");
        xml(name, uuid).replace("<devices>", &mac)
    };
    let (web, db) = (with("web", UUID, "01"), with("db", OTHER, "1"));
    assert_eq!(node.form("POST", "/vm", &[("xml", web.as_str())]).await.status, 200);
    let told = node.form("POST", "/vm", &[("xml", db.as_str())]).await;
    assert_eq!(told.status, 400, "{told:?}");
    let message = told.json()["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("VM db cannot be defined: VM web has MAC address 52:54:00:00:00:01 too."), "{message}");
    // With another one it is defined, and cannot be changed to that one.
    assert_eq!(node.form("POST", "/vm", &[("xml", with("db", OTHER, "2").as_str())]).await.status, 200);
    let told = node.form("PUT", "/vm/db", &[("xml", db.as_str())]).await;
    assert!(told.status == 400 && told.text.contains("cannot be changed so: VM web has"), "{told:?}");
    let told = node.form("PUT", "/vm/db", &[("xml", db.as_str()), ("force", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    // What it has already does not keep it from being changed otherwise.
    let larger = db.replace("128", "192");
    assert_eq!(node.form("PUT", "/vm/db", &[("xml", larger.as_str())]).await.status, 200);

    // Only one of them runs.
    assert_eq!(node.form("POST", "/vm/web/state", &[("state", "start")]).await.status, 200);
    let told = node.form("POST", "/vm/db/state", &[("state", "start")]).await;
    assert!(told.status == 400 && told.text.contains("VM web, which runs or is to run, has MAC"), "{told:?}");
    assert_eq!(node.form("POST", "/vm/web/state", &[("state", "start")]).await.status, 200, "it is not its own rival");
    assert_eq!(node.form("POST", "/vm/web/state", &[("state", "stop")]).await.status, 200);
    node.vm_until("web", |vm| vm["claim"]["node"] == "").await;
    assert_eq!(node.form("POST", "/vm/db/state", &[("state", "start")]).await.status, 200);
    let told = node.form("POST", "/vm/web", &[("force", "true")]).await;
    assert_eq!(told.status, 400, "{told:?}");
}

#[tokio::test]
async fn a_vm_is_not_defined_on_a_node_without_its_bridges() {
    let node = TestNode::start().await;
    let bridge = "<devices><interface type='bridge'><source bridge='br7'/></interface>";
    let bridged = xml("web", UUID).replace("<devices>", bridge);
    let named = [("xml", bridged.as_str()), ("node", "hv1")];
    let told = node.form("POST", "/vm", &named).await;
    assert_eq!(told.status, 400, "{told:?}");
    let says = "VM web cannot be defined on node hv1: it has no bridge br7. Add it there first; no node has all that \
                its definition names";
    assert_eq!(told.json()["message"], says);
    assert_eq!(node.form("POST", "/vm/web", &named).await.status, 400, "at its own path neither");
    assert_eq!(node.get("/vm").await.json(), json!([]), "nothing was changed");
    // A VM that is off may be on a node without room for it.
    let large = xml("web", UUID).replace("<memory unit='MiB'>128", "<memory unit='GiB'>128");
    let told = node.form("POST", "/vm", &[("xml", large.as_str()), ("node", "hv1")]).await;
    assert_eq!(told.status, 200, "{told:?}");
}

#[tokio::test]
async fn lists_are_accepted_in_all_forms() {
    let node = TestNode::start().await;
    let _second = node.beside("hv2", 8192).await;
    assert_eq!(node.define("web", UUID).await.status, 200);
    let url = "application/x-www-form-urlencoded";
    let both = json!(["hv1", "hv2"]);
    for (query, kind, body, shown) in [
        ("", url, "limit=hv1%2Chv2".to_owned(), &both),
        ("", url, "limit=hv2&limit=hv1".to_owned(), &both),
        ("", url, "limit=hv1%2C+hv2%2C".to_owned(), &both),
        ("?limit=hv1&limit=hv2", "", String::new(), &both),
        ("?limit=hv1", url, "limit=hv2".to_owned(), &both),
        ("", "application/json", json!({"limit": ["hv2", "hv1"]}).to_string(), &both),
        ("", "application/json", json!({"limit": "hv1,hv2"}).to_string(), &both),
        // A list of one node.
        ("", "application/json", json!({"limit": ["hv2"]}).to_string(), &json!(["hv2"])),
        ("?limit=hv2", "", String::new(), &json!(["hv2"])),
        // Empty is cleared; null is not given.
        ("", "application/json", json!({"limit": null}).to_string(), &json!(["hv2"])),
        ("", "application/json", json!({"limit": []}).to_string(), &json!([])),
    ] {
        let told = node.raw("POST", &format!("/vm/web/meta{query}"), kind, body.clone()).await;
        assert_eq!(told.status, 200, "{query} {body}: {told:?}");
        assert_eq!(node.get("/vm/web/meta").await.json()["node_limit"], *shown, "{query} {body}");
    }
}

#[tokio::test]
async fn tags_are_added_protected_filtered_and_removed() {
    let node = TestNode::start().await;
    let fields = [("xml", xml("web", UUID)), ("user_tags", "a,b".to_owned()), ("protected_tags", "b,c".to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(node.form("POST", "/vm", &fields).await.status, 200);
    assert_eq!(node.define("db", OTHER).await.status, 200);
    let tag = |name: &str, protected: bool| json!({"name": name, "type": "user", "protected": protected});
    let all = json!({"name": "web", "tags": [tag("a", false), tag("b", true), tag("c", true)]});
    assert_eq!(node.get("/vm/web/tags").await.json(), all);
    let change = async |action: &str, tag: &str, protected: &str| {
        let fields = [("action", action), ("tag", tag), ("protected", protected)];
        node.form("POST", &format!("/vm/{}/tags", if tag == "x" { "db" } else { "web" }), &fields).await
    };
    // A protected tag cannot be removed until it is unprotected.
    let told = change("remove", "b", "false").await;
    assert_eq!((told.status.as_u16(), told.json()["field"].as_str()), (400, Some("tag")), "{told:?}");
    assert!(told.text.contains("protected"), "{told:?}");
    assert_eq!(node.get("/vm/web/tags").await.json(), all);
    assert_eq!(change("add", "b", "false").await.status, 200);
    assert_eq!(change("remove", "b", "false").await.status, 200);
    assert_eq!(change("add", "x", "true").await.status, 200);
    assert_eq!(node.get("/vm/web/tags").await.json()["tags"], json!([tag("a", false), tag("c", true)]));
    assert_eq!(node.get("/vm/db/tags").await.json()["tags"], json!([tag("x", true)]));
    let names = async |query: &str| -> Vec<String> {
        let list = node.get(&format!("/vm?{query}")).await.json();
        list.as_array().unwrap().iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("tag=a").await, ["web"]);
    assert_eq!(names("tag=x").await, ["db"]);
    assert_eq!(names("tag=a&negate=true").await, ["db"]);
    assert_eq!(names("tag=b").await, Vec::<String>::new());
}

/// POST to a VM's path defines it if it has a definition; otherwise it changes the existing VM.
#[tokio::test]
async fn a_vm_is_defined_at_its_own_path() {
    let node = TestNode::start().await;
    let none = xml("web", "");
    for (path, definition, status) in [
        ("/vm/shop", &none, 400),
        (&*format!("/vm/{OTHER}"), &xml("web", UUID), 400),
        ("/vm/web", &none, 200),
        // It exists now.
        ("/vm/web", &none, 409),
        (&*format!("/vm/{UUID}"), &xml("db", UUID), 200),
        // A definition without a UUID gets the path's.
        (&*format!("/vm/{OTHER}"), &xml("mail", ""), 200),
    ] {
        let told = node.form("POST", path, &[("xml", definition), ("priority", "5")]).await;
        assert_eq!(told.status, status, "{path}: {told:?}");
        if status == 400 {
            assert_eq!(told.json()["field"], "xml", "{told:?}");
        }
    }
    let shown: Vec<Value> = node.get("/vm").await.json().as_array().unwrap().clone();
    let names: Vec<&str> = shown.iter().filter_map(|vm| vm["name"].as_str()).collect();
    assert_eq!(names, ["db", "mail", "web"]);
    assert!(shown.iter().all(|vm| vm["priority"] == 5), "with their metadata");
    assert_eq!(node.get("/vm/mail").await.json()["uuid"], OTHER);
    // Without a definition: changes the metadata of an existing VM.
    assert_eq!(node.form("POST", "/vm/mail", &[("priority", "6")]).await.status, 200);
    assert_eq!(node.get("/vm/mail/meta").await.json()["priority"], 6);
    assert_eq!(node.form("POST", "/vm/nobody", &[("priority", "6")]).await.status, 404);
}

#[tokio::test]
async fn the_configuration_is_shown_and_changed_in_parts() {
    let node = TestNode::start().await;
    let before = json!({
        "cluster_name": "drover", "maintenance": false, "selector": "mem",
        "moves_per_source": 2, "moves_per_target": 2, "moves": 8,
        "stall": "abort", "migration_deadline": 300, "tolerate": 1,
        "after_proof": "recover", "power_on": false, "on_return": "flushed",
    });
    let mut wanted = before.clone();
    assert_eq!(node.get("/config").await.json(), before);
    for (name, value) in [
        ("selector", json!("vms")),
        ("moves_per_source", json!(3)),
        ("moves_per_target", json!(4)),
        ("moves", json!(5)),
        ("stall", json!("post-copy")),
        ("migration_deadline", json!(60)),
        ("tolerate", json!(0)),
        ("after_proof", json!("none")),
        ("power_on", json!(true)),
        ("on_return", json!("ready")),
    ] {
        let told = node.json("PUT", "/config", json!({ name: value })).await;
        assert_eq!(told.status, 200, "{name}: {told:?}");
        wanted[name] = value;
        assert_eq!(told.json(), wanted, "the answer, after {name}");
        assert_eq!(node.get("/config").await.json(), wanted, "after {name}");
    }
}
