//! The fake's answers beside those of a real llama-server: status, event order, and every key with its type.
//!
//! The captures are files (made by captures/capture.py), so the test needs no engine. The fake plays vLLM, so it may
//! differ; each difference is a line of captures/differences.txt with its reason. An unlisted difference fails, and
//! so does a listed one that is gone: the list stays the exact truth.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use outrigger_fakes::{Fake, Profile};
use serde_json::Value;

use crate::wire::{Raw, fake, status};

type Names = BTreeMap<String, BTreeSet<String>>;

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

#[tokio::test]
async fn every_difference_to_a_real_engine_is_listed_and_every_listed_one_exists() {
    let fake = fake(Profile { model: "tiny".into(), max_model_len: 2048, ..Profile::instant() }).await;
    let text = std::fs::read_to_string(captures().join("requests.json")).unwrap();
    let requests: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut found = Names::new();
    for request in &requests {
        let name = request["name"].as_str().unwrap();
        let (ours, theirs) = (shape(&ask(&fake, request).await), shape(&captured(name)));
        for (side, fact) in
            theirs.difference(&ours).map(|f| ("engine", f)).chain(ours.difference(&theirs).map(|f| ("fake", f)))
        {
            found.entry(format!("{side} {fact}")).or_default().insert(name.to_owned());
        }
    }
    let listed = listed();
    let unlisted = lines(&found, &listed);
    let gone = lines(&listed, &found);
    assert!(unlisted.is_empty() && gone.is_empty(), "not listed:\n{unlisted}\nlisted, but no longer so:\n{gone}");
}

/// What is in `these` and not in `those`, in the form of the list.
fn lines(these: &Names, those: &Names) -> String {
    let mut text = String::new();
    for (fact, names) in these {
        let left: Vec<&str> =
            names.iter().filter(|n| !those.get(fact).is_some_and(|o| o.contains(*n))).map(String::as_str).collect();
        if !left.is_empty() {
            let _ = writeln!(text, "{fact} | {}", left.join(" "));
        }
    }
    text
}

fn listed() -> Names {
    let text = std::fs::read_to_string(captures().join("differences.txt")).unwrap();
    let mut listed = Names::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (fact, names) = line.split_once(" | ").unwrap_or_else(|| panic!("no names in {line:?}"));
        listed.entry(fact.to_owned()).or_default().extend(names.split(' ').map(str::to_owned));
    }
    listed
}

struct Answer {
    status: u16,
    kind: String,
    body: String,
}

fn captured(name: &str) -> Answer {
    let dir = captures().join("llama-server");
    let text = ["json", "sse"]
        .iter()
        .find_map(|end| std::fs::read_to_string(dir.join(format!("{name}.{end}"))).ok())
        .unwrap_or_else(|| panic!("no capture of {name}"));
    let (head, body) = text.split_once('\n').unwrap();
    let (status, kind) = head.split_once(' ').unwrap();
    Answer { status: status.parse().unwrap(), kind: kind.to_owned(), body: body.to_owned() }
}

async fn ask(fake: &Fake, request: &Value) -> Answer {
    let path = request["path"].as_str().unwrap();
    let text = if request["method"] == "GET" {
        Raw::get(fake, path).await
    } else {
        let body = request["text"].as_str().map_or_else(|| request["body"].to_string(), str::to_owned);
        let body = body.replace("REPEAT", &"hello ".repeat(8000));
        Raw::post(fake, path, &body).await.rest().await.0
    };
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let kind = head.lines().find_map(|l| l.strip_prefix("content-type: ")).unwrap_or_default();
    Answer { status: status(&text), kind: kind.to_owned(), body: body.to_owned() }
}

/// The facts of an answer that a client can depend on.
fn shape(answer: &Answer) -> BTreeSet<String> {
    let mut facts = BTreeSet::from([format!("status {}", answer.status)]);
    facts.insert(format!("content-type {}", answer.kind.split(';').next().unwrap_or_default()));
    if answer.kind.starts_with("text/event-stream") {
        events(&answer.body, &mut facts);
    } else if let Ok(value) = serde_json::from_str::<Value>(&answer.body) {
        keys("$", &value, "", &mut facts);
    } else {
        facts.insert(format!("body {:?}", answer.body));
    }
    facts
}

fn events(body: &str, facts: &mut BTreeSet<String>) {
    let mut order: Vec<&str> = Vec::new();
    for data in body.lines().filter_map(|l| l.strip_prefix("data: ")) {
        let event = serde_json::from_str(data).unwrap_or(Value::Null);
        let kind = kind(&event);
        if order.last() != Some(&kind) {
            order.push(kind);
        }
        keys("$", &event, &format!("{kind}: "), facts);
    }
    facts.insert(format!("order {}", order.join(" ")));
}

fn kind(event: &Value) -> &'static str {
    let choice = &event["choices"][0];
    if event.is_null() {
        "done"
    } else if event["error"].is_object() {
        "error"
    } else if choice["finish_reason"].is_string() {
        "finish"
    } else if choice["delta"]["role"].is_string() {
        "role"
    } else if choice.is_null() {
        "usage"
    } else {
        "content"
    }
}

/// Every path to a scalar with its type; the elements of an array are one.
pub(crate) fn keys(path: &str, value: &Value, prefix: &str, facts: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Object(map) => return map.iter().for_each(|(k, v)| keys(&format!("{path}.{k}"), v, prefix, facts)),
        Value::Array(list) if !list.is_empty() => {
            return list.iter().for_each(|v| keys(&format!("{path}[]"), v, prefix, facts));
        }
        Value::Array(_) => "empty",
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
    };
    facts.insert(format!("{prefix}{path} {kind}"));
}
