//! Slightly invalid requests: each gets a response that says what is wrong, and none crashes the daemon.

use crate::support::TestNode;
use drover_model::Dice;

const WORDS: &[&str] =
    &["%00", "%zz", "%", "&", "=", "&&", "[]", "\"", "{", "null", "\u{202e}", "%F0%9F%92%A9", "a=b&a=c", "-1"];

#[tokio::test(start_paused = true)]
async fn mutated_requests_are_answered() {
    let node = TestNode::start().await;
    let mut dice = Dice::new(4);
    let (mut good, mut bad) = (0, 0);
    for n in 0..1500 {
        let (method, path, given) = [
            ("GET", "/vm", "limit=^web&negate=true&state=start&xml=false"),
            ("GET", "/node", "limit=hv&daemon_state=run"),
            ("POST", "/status", "state=false&until=1700000000001"),
            ("PUT", "/config", "selector=mem&moves=3&migration_deadline=30"),
            ("GET", "/faults", "sort_key=id"),
        ][n % 5];
        let text = String::from_utf8_lossy(&dice.mutate(given.as_bytes(), WORDS)).into_owned();
        // As a form, and, as far as a request line can have it, as a query.
        let form = node.raw(method, path, "application/x-www-form-urlencoded", text.clone()).await;
        let json = node.raw(method, path, "application/json", text.clone()).await;
        for told in [form, json] {
            let status = told.status.as_u16();
            assert!(
                matches!(status, 200 | 400 | 404 | 405 | 409 | 415),
                "{method} {path} {text:?}: {status} {}",
                told.text
            );
            if status == 200 { good += 1 } else { bad += 1 }
        }
    }
    assert!(good > 20 && bad > 500, "{good} good, {bad} bad: the mutations say little");
    assert_eq!(node.get("/status").await.status, 200);
}
