//! What would be left if a cloud died, in the metrics, in the state and in words.

use std::{io::Write as _, net::TcpStream};

use outrigger_fakes::Fixed;

use super::{
    Engines, Gateway, LLAMA_70B, Profile, eventually, hello,
    http::{Request, connect},
    signals::series,
    streamed,
};

/// One request that is in flight for longer than the test.
fn begin(gateway: &Gateway) -> TcpStream {
    let mut stream = connect(gateway.listen);
    stream.write_all(&Request::chat(&streamed(hello())).bytes()).unwrap();
    stream
}

#[test]
fn what_is_served_without_a_cloud_is_what_fits_into_the_others() {
    let endless =
        Profile { fixed: Some(Fixed { ttft_ms: 10.0, tokens: 20, total_ms: 60_000.0 }), ..Profile::instant() };
    let engines = Engines::start([endless.clone(), endless.clone(), endless]);
    let backend = |name: &str, cloud: &str, n: usize, rest: &str| {
        let url = engines.url(n);
        format!("  {name}:\n    cloud: {cloud}\n    engine: vllm\n    url: {url}/v1\n    model: {LLAMA_70B}\n{rest}")
    };
    let (cw, la) = (backend("cw", "coreweave", 0, ""), backend("la", "lambda", 1, "    max_in_flight: 5\n"));
    let mini = backend("mini", "other", 2, "    max_in_flight: 2\n");
    let fleet = format!(
        "version: 1\nclouds:\n  coreweave: {{}}\n  lambda: {{}}\n  other: {{}}\nbackends:\n{cw}{la}{mini}models:\n  llama:\n    \
         tiers:\n      - split: {{ cw: 1, la: 1 }}\n      - split: {{ mini: 1 }}\n        substitute: true\n"
    );
    let gateway = Gateway::start("survival", &fleet);
    let share = |lost: &str| {
        let labels = ["model=\"llama\"", &format!("lost_cloud=\"{lost}\"")];
        series(&gateway, "outrigger_survivable_share", &labels)
    };
    assert_eq!((share("coreweave"), share("lambda")), (Some(1.0), Some(1.0)));
    let words = || String::from_utf8(gateway.command(&["status"]).stdout).unwrap();
    assert!(words().contains("if coreweave dies now: llama 100 % served (nothing in flight)\n"), "{}", words());

    // Four and four; the other has room for five of the eight, and the substitute for two more.
    let clients: Vec<TcpStream> = (0..8).map(|_| begin(&gateway)).collect();
    eventually("all of them in flight", || share("coreweave") == Some(0.625));
    assert_eq!((share("lambda"), share("other")), (Some(0.5), Some(1.0)), "no limit of coreweave is known");
    let state = gateway.json(&["status"]);
    let lost = &state["survival"][0];
    assert_eq!((&lost["lost_cloud"], &lost["model"]), (&"coreweave".into(), &"llama".into()));
    assert_eq!((&lost["share_with_substitutes"], &lost["load"]), (&0.875.into(), &8.0.into()), "{lost}");
    let words = words();
    for line in [
        "if coreweave dies now: llama 62 % served (87 % with substitutes)\n",
        "if lambda dies now: llama at least 50 % served (75 % with substitutes)\n",
        "if other dies now: llama 100 % served\n",
    ] {
        assert!(words.contains(line), "{words}");
    }
    drop(clients);
}
