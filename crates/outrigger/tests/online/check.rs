//! `outrigger check --online`: which faults of backends are found, what differs between those of one model, and what
//! it costs to ask.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use outrigger_fakes::{Fake, Options, Profile};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{
    closed_port, file, outrigger,
    server::{Act, Asked, Server, html, json_of, models, not_found},
    wait_for,
};

/// An engine as a test wants it.
#[derive(Clone, Copy)]
struct Engine {
    /// The name that it answers under.
    model: &'static str,
    /// What its template adds to each prompt.
    extra_tokens: usize,
    text: &'static str,
    takes_logprobs: bool,
    takes_tools: bool,
}

const ENGINE: Engine =
    Engine { model: "m", extra_tokens: 0, text: "one two three", takes_logprobs: true, takes_tools: true };

impl Engine {
    fn start(self) -> Server {
        self.start_with(|_| None)
    }

    /// With an exception for some requests.
    fn start_with(self, except: impl Fn(&Asked) -> Option<Act> + Send + Sync + 'static) -> Server {
        Server::start(move |asked| except(asked).unwrap_or_else(|| self.act(asked)))
    }

    fn act(self, asked: &Asked) -> Act {
        let bad = |why: &str| Act::Answer(400, "application/json", json!({ "error": why }).to_string().into_bytes());
        match asked.path.as_str() {
            "/v1/models" => models(&[self.model]),
            "/v1/chat/completions" if asked.body.get("logprobs").is_some() && !self.takes_logprobs => {
                bad("no logprobs")
            }
            "/v1/chat/completions" if asked.body.get("tools").is_some() && !self.takes_tools => bad("no tool parser"),
            "/v1/chat/completions" => json_of(&self.completion(&asked.body)),
            _ => not_found(),
        }
    }

    fn completion(self, asked: &Value) -> Value {
        let message = if asked.get("tools").is_some() {
            json!({ "tool_calls": [{ "function": { "name": "get_weather", "arguments": "{\"city\":\"Rome\"}" } }] })
        } else if asked.get("response_format").is_some() {
            json!({ "content": "{\"answer\":\"yes\"}" })
        } else {
            json!({ "content": self.text })
        };
        let tokens: Vec<Value> = self.text.split(' ').map(|token| json!({ "token": token })).collect();
        let logprobs = asked.get("logprobs").map(|_| json!({ "content": tokens }));
        let prompt_tokens = asked["messages"].to_string().len() / 4 + self.extra_tokens;
        json!({
            "model": self.model,
            "choices": [{ "index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs }],
            "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": 3 },
        })
    }
}

/// A fleet of model `llm` on backends `a`, `b`, …, each with more lines.
fn fleet(test: &str, backends: &[(&str, &str)]) -> String {
    let names = ["a", "b", "c"];
    let backend = |(name, (url, more)): (&&str, &(&str, &str))| {
        format!("  {name}:\n    cloud: here\n    engine: openai\n    url: {url}/v1\n    model: m\n{more}")
    };
    let all: String = names.iter().zip(backends).map(backend).collect();
    let split: Vec<String> = names.iter().zip(backends).map(|(name, _)| format!("{name}: 1")).collect();
    let split = split.join(", ");
    file(
        test,
        &format!(
            "version: 1\nclouds:\n  here: {{}}\nbackends:\n{all}models:\n  llm:\n    tiers:\n      - split: {{ {split} }}\n"
        ),
    )
}

const FAST: &str = "    apis: [chat]\n";

/// What `--json` says, after the rules that hold for every answer.
#[track_caller]
fn online(fleet: &str, more: &[&str], code: i32) -> Value {
    let said = outrigger(&[&["check", fleet, "--online", "--json"], more].concat(), KEY, code);
    assert_eq!(said.stderr, "");
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    for fault in found["errors"].as_array().unwrap().iter().chain(found["warnings"].as_array().unwrap()) {
        let keys: Vec<_> = fault.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["code", "file", "line", "column", "path", "message", "help"]);
        assert!(fault["help"].as_str().is_some_and(|help| !help.is_empty()), "{fault}");
    }
    found
}

const KEY: &[(&str, &str)] = &[("ENGINE_KEY", "CANARY")];

/// The codes, by severity.
fn codes<'a>(found: &'a Value, severity: &str) -> Vec<&'a str> {
    found[severity].as_array().unwrap().iter().map(|fault| fault["code"].as_str().unwrap()).collect()
}

/// The codes of what differs between two engines, and all that is said of it.
#[track_caller]
fn differences(test: &str, one: &Server, other: &Server) -> (Vec<String>, String) {
    let found = online(&fleet(test, &[(&one.url(), FAST), (&other.url(), FAST)]), &[], 0);
    (codes(&found, "warnings").into_iter().map(str::to_owned).collect(), found["warnings"].to_string())
}

#[test]
fn engines_that_are_alike_have_no_warning_and_a_table() {
    let (one, other) = (ENGINE.start(), ENGINE.start());
    let file = fleet("alike", &[(&one.url(), FAST), (&other.url(), FAST)]);
    let found = online(&file, &[], 0);
    assert_eq!((codes(&found, "errors"), codes(&found, "warnings")), (vec![], vec![]));
    let parity = &found["parity"][0];
    assert_eq!((&parity["model"], &parity["backends"]), (&json!("llm"), &json!(["a", "b"])));
    assert_eq!(parity["prompts"].as_array().unwrap().len(), 10);
    assert_eq!(parity["prompts"][3]["alike"], json!({ "a": { "same": 3, "of": 3 }, "b": { "same": 3, "of": 3 } }));
    assert_eq!(parity["tools"], json!({ "a": "works", "b": "works" }));
    assert_eq!(parity["json_schema"], json!({ "a": "works", "b": "works" }));
    let said = outrigger(&["check", &file, "--online"], &[], 0);
    for row in ["llm ", "  plain ", ", 3/3 alike", "  tool call    works   works", "0 errors, 0 warnings"] {
        assert!(said.stdout.contains(row), "{row} is not in\n{}", said.stdout);
    }
}

#[test]
fn simulated_engines_of_one_profile_are_alike() {
    let runtime = Runtime::new().unwrap();
    let fake = || runtime.block_on(Fake::spawn(Options::new(Profile::instant()))).unwrap();
    let fakes = [fake(), fake()];
    let written = outrigger(&["init", &fakes[0].url(), &fakes[1].url()], &[], 0).stdout;
    let found = online(&file("fakes", &written), &[], 0);
    assert_eq!((codes(&found, "errors"), codes(&found, "warnings")), (vec![], vec![]));
    assert_eq!(found["backends"][0]["engine"], "vllm");
    assert!(fakes.iter().all(|fake| fake.stats().probes > 12), "questions are marked as probes");
}

#[test]
fn another_template_or_tokenizer_shows_in_the_counts() {
    let one = ENGINE.start();
    let template = Engine { extra_tokens: 4, ..ENGINE }.start();
    let (codes, said) = differences("template", &one, &template);
    assert_eq!(codes, ["parity_prompt_tokens"]);
    assert!(said.contains("10 of 10 prompts") && said.contains("most likely another chat template"), "{said}");
    // It counts only what is not ASCII otherwise.
    let tokenizer = ENGINE.start_with(|asked| {
        let odd = asked.body["messages"].to_string().chars().filter(|c| !c.is_ascii()).count();
        Some(Engine { extra_tokens: odd, ..ENGINE }.act(asked))
    });
    let (codes, said) = differences("tokenizer", &one, &tokenizer);
    assert_eq!(codes, ["parity_prompt_tokens"]);
    assert!(said.contains("3 of 10 prompts (unicode, emoji, whitespace)") && said.contains("or tokenizer"), "{said}");
}

#[test]
fn other_weights_show_in_the_answers() {
    let other = Engine { text: "one two four", ..ENGINE };
    let (codes, said) = differences("weights", &ENGINE.start(), &other.start());
    assert_eq!(codes, ["parity_answers"]);
    assert!(said.contains("`b` answers 10 of 10 prompts unlike `a`") && said.contains("earliest after 2"), "{said}");
    // Where one of them tells no tokens, by words.
    let words = Engine { takes_logprobs: false, ..other };
    assert_eq!(differences("words", &ENGINE.start(), &words.start()).0, ["parity_answers"]);
    let same = Engine { takes_logprobs: false, ..ENGINE };
    assert_eq!(differences("same-words", &ENGINE.start(), &same.start()).0, [""; 0]);
}

#[test]
fn tools_and_forms_that_work_on_one_only_are_told() {
    let (codes, said) = differences("tools", &ENGINE.start(), &Engine { takes_tools: false, ..ENGINE }.start());
    assert_eq!(codes, ["parity_tools"]);
    assert!(said.contains("it works on a; is refused (400: no tool parser) on b"), "{said}");
    let formless = ENGINE.start_with(|asked| {
        let is_form = asked.body.get("response_format").is_some();
        is_form.then(|| json_of(&json!({ "model": "m", "choices": [{ "message": { "content": "Yes!" } }] })))
    });
    let (codes, said) = differences("forms", &ENGINE.start(), &formless);
    assert_eq!(codes, ["parity_json_schema"]);
    assert!(said.contains("contents that are not JSON"), "{said}");
}

#[test]
fn lengths_of_context_are_compared() {
    let with = |context: u64| {
        ENGINE.start_with(move |asked| {
            let list = json!({ "data": [{ "id": "m", "max_model_len": context }] });
            (asked.path == "/v1/models").then(|| json_of(&list))
        })
    };
    let (codes, said) = differences("context", &with(8192), &with(4096));
    assert_eq!(codes, ["parity_context"]);
    assert!(said.contains("8192 on a; 4096 on b") && said.contains("--max-model-len"), "{said}");
}

#[test]
fn each_way_to_be_no_backend_is_told_from_the_others() {
    let good = ENGINE.start();
    let chats = |act: fn() -> Act| ENGINE.start_with(move |asked| (asked.path == "/v1/chat/completions").then(act));
    let huge = || Act::Answer(200, "application/json", vec![b' '; 5 << 20]);
    for (test, server, code, expect) in [
        ("html", chats(html), "backend_fails", "200 with a page for browsers"),
        ("cut", chats(|| Act::Cut), "backend_fails", "breaks off in the middle"),
        ("huge", chats(huge), "backend_fails", "more than 4096 KiB"),
        ("hang", chats(|| Act::Hang), "backend_fails", "no whole answer within 1s"),
        (
            "500",
            chats(|| Act::Answer(500, "text/plain", b"out of memory".to_vec())),
            "backend_fails",
            "500: out of memory",
        ),
        ("503", chats(|| Act::Answer(503, "text/plain", b"loading".to_vec())), "backend_fails", "is not ready (503"),
        ("401", chats(|| Act::Answer(401, "text/plain", b"no".to_vec())), "backend_key", "401: no"),
        ("404", chats(not_found), "backend_other_model", "does not serve `m` (404: Not Found)"),
        ("error", chats(|| json_of(&json!({ "error": { "message": "broken" } }))), "backend_fails", "broken"),
        ("name", Engine { model: "x", ..ENGINE }.start(), "backend_other_model", "answers as `x` where `m`"),
    ] {
        let file = fleet(&format!("down-{test}"), &[(&good.url(), FAST), (&server.url(), FAST)]);
        let found = online(&file, &["--timeout", "1"], 1);
        assert_eq!(codes(&found, "errors"), [code], "{test}: {found}");
        let fault = &found["errors"][0];
        assert!(fault["message"].as_str().unwrap().contains(expect), "{test}: {fault}");
        assert_eq!((&fault["path"], &fault["line"]), (&json!("backends.b"), &json!(11)), "{test}");
        assert_eq!((&found["backends"][0]["ok"], &found["backends"][1]["fault"]), (&json!(true), &json!(code)));
        assert_eq!(found["parity"], json!([]), "{test}: one alone is compared with nobody");
    }
    let closed = format!("http://127.0.0.1:{}", closed_port());
    let found = online(&fleet("down-closed", &[(&good.url(), FAST), (&closed, FAST)]), &[], 1);
    assert_eq!(codes(&found, "errors"), ["backend_unreachable"]);
}

#[test]
fn a_second_name_of_what_an_engine_has_loaded_is_told_from_another_model() {
    let listed = |root: &'static str| {
        let data = json!([{ "id": "x", "root": "org/x" }, { "id": "m", "root": root }]);
        Engine { model: "x", ..ENGINE }
            .start_with(move |asked| (asked.path == "/v1/models").then(|| json_of(&json!({ "data": data }))))
    };
    for (root, expect) in [("org/x", "write `model: x`"), ("org/m", "it lists x, m")] {
        let found = online(&fleet("second-name", &[(&listed(root).url(), FAST)]), &[], 1);
        assert_eq!(codes(&found, "errors"), ["backend_other_model"]);
        assert!(found["errors"][0]["help"].as_str().unwrap().contains(expect), "{found}");
    }
}

#[test]
fn one_that_stops_answering_is_not_asked_further() {
    let tired = ENGINE.start_with(|asked| {
        let is_code = asked.body["messages"].to_string().contains("def f(");
        is_code.then_some(Act::Hang)
    });
    let file = fleet("tired", &[(&ENGINE.start().url(), FAST), (&tired.url(), FAST)]);
    let found = online(&file, &["--timeout", "1"], 0);
    assert_eq!(codes(&found, "warnings"), ["parity_incomplete"]);
    assert!(found["warnings"].to_string().contains("(the prompt `code`)"), "{found}");
    assert_eq!(found["parity"][0]["prompts"][4]["prompt_tokens"]["b"], Value::Null);
}

#[test]
fn tokens_that_are_billed_are_not_spent_on_comparing() {
    let (one, metered) = (ENGINE.start(), ENGINE.start());
    let price = format!("{FAST}    usd_per_million_tokens: {{ input: 1, output: 2 }}\n");
    let file = fleet("metered", &[(&one.url(), FAST), (&metered.url(), &price)]);
    let found = online(&file, &[], 0);
    assert_eq!((codes(&found, "warnings"), &found["parity"]), (vec![], &json!([])));
    assert_eq!(metered.paths(), ["/v1/chat/completions", "/v1/models"], "one token, and a list that costs nothing");
    let said = outrigger(&["check", &file, "--online"], &[], 0);
    assert!(
        said.stderr.contains("b is not compared for llm: it is billed by the token (--parity-all)"),
        "{}",
        said.stderr
    );
    let found = online(&file, &["--parity-all"], 0);
    assert_eq!(found["parity"][0]["backends"], json!(["a", "b"]));
}

#[test]
fn secrets_have_to_be_there_and_are_never_shown() {
    let key = format!("{FAST}    api_key: \"${{ENGINE_KEY}}\"\n");
    let echo = Server::start(|asked| Act::Answer(500, "text/plain", asked.head.clone().into_bytes()));
    let file = fleet("secret", &[(&echo.url(), &key)]);
    let found = online(&file, &[], 1);
    assert_eq!(codes(&found, "errors"), ["backend_fails"]);
    assert!(echo.heads()[0].contains("Bearer CANARY"));
    let asked = echo.paths().len();
    let absent = fleet("absent", &[(&echo.url(), &key.replace("ENGINE_KEY", "NOT_SET_HERE"))]);
    let found = online(&absent, &[], 1);
    assert_eq!((codes(&found, "errors"), echo.paths().len()), (vec!["secret_absent"], asked));
    let empty = file.replace("fleet.yaml", "empty");
    std::fs::write(&empty, "\n").unwrap();
    let absent = fleet("secret", &[(&echo.url(), &format!("{FAST}    api_key: file:empty\n"))]);
    std::fs::write(&empty, "\n").unwrap();
    assert_eq!(codes(&online(&absent, &[], 1), "errors"), ["secret_absent"]);
}

#[test]
fn another_engine_than_the_file_says_is_told() {
    let runtime = Runtime::new().unwrap();
    let fake = runtime.block_on(Fake::spawn(Options::new(Profile::instant()))).unwrap();
    let written = outrigger(&["init", &fake.url()], &[], 0).stdout.replace("engine: vllm", "engine: sglang");
    let found = online(&file("engine", &written), &[], 0);
    assert_eq!(codes(&found, "warnings"), ["backend_other_engine"]);
    assert!(found["warnings"][0]["help"].as_str().unwrap().contains("`engine: vllm`"), "{found}");
}

#[test]
fn ctrl_c_ends_it_and_faulty_files_are_not_asked_about() {
    let hangs = Server::start(|_| Act::Hang);
    let path = fleet("ctrl-c", &[(&hangs.url(), FAST)]);
    let child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["check", &path, "--online"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| !hangs.paths().is_empty());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let began = std::time::Instant::now();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(10));

    let asked = hangs.paths().len();
    let faulty = std::fs::read_to_string(&path).unwrap().replace("engine: openai", "engine: opnai");
    let faulty = file("ctrl-c-faulty", &faulty);
    assert!(outrigger(&["check", &faulty, "--online"], &[], 1).stderr.contains("did you mean `openai`?"));
    assert_eq!(hangs.paths().len(), asked);
    outrigger(&["check", &faulty, "--timeout", "3"], &[], 2);
    outrigger(&["check", "no/such/file", "--online"], &[], 3);
}
