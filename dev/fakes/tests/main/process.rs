//! The fake as a process of its own: its ready line, its end by signal, by `kill` and with its parent; and the
//! profiles that a command reads.
//!
//! The process is this very test binary, asked to run the ignored test `child`, so that no extra binary is needed.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use outrigger_fakes::{EngineKind, Options, Profile, ProfileError, run_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::faults::admin_at;

#[tokio::test]
#[ignore = "not a test: what the others run as a process"]
async fn child() {
    run_process(Options::new(Profile::instant()), true).await.unwrap();
}

const CHILD: [&str; 4] = ["--ignored", "--exact", "process::child", "--nocapture"];

async fn ready(child: &mut Child) -> (SocketAddr, SocketAddr) {
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    loop {
        let line = timeout(Duration::from_secs(20), lines.next_line()).await.expect("in time").expect("readable");
        let line = line.expect("a ready line before the end");
        if let Some(at) = line.find('{') {
            let ready: Value = serde_json::from_str(&line[at..]).expect("JSON");
            assert_eq!((&ready["event"], &ready["profile"]), (&"ready".into(), &"instant".into()));
            // The rest of the output is left to the pipe's buffer.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (address(&ready["listen"]), address(&ready["admin"]));
        }
    }
}

fn address(url: &Value) -> SocketAddr {
    url.as_str().and_then(|u| u.strip_prefix("http://")).expect("a URL").parse().expect("without a path")
}

fn itself() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(CHILD).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_kill_fault_ends_the_process_with_137_and_its_port_refuses() {
    let mut child = itself().spawn().unwrap();
    let (listen, admin) = ready(&mut child).await;
    admin_at(admin, "POST", "/faults", r#"{"fault":"kill"}"#).await;
    let end = timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert_eq!(end.code(), Some(137));
    assert!(TcpStream::connect(listen).await.is_err());
}

#[tokio::test]
async fn sigterm_ends_the_process_in_peace() {
    let mut child = itself().spawn().unwrap();
    ready(&mut child).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let end = timeout(Duration::from_secs(20), child.wait()).await.unwrap().unwrap();
    assert!(end.success());
}

#[tokio::test]
async fn a_process_dies_with_its_parent() {
    let mut shell = Command::new("sh")
        .args(["-c", "\"$0\" \"$@\" & wait"])
        .arg(std::env::current_exe().unwrap())
        .args(CHILD)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (listen, _) = ready(&mut shell).await;
    shell.kill().await.unwrap();
    let gone = async {
        while TcpStream::connect(listen).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[test]
fn profiles_are_names_or_files() {
    for name in Profile::NAMES {
        assert_eq!(Profile::load(name).unwrap().name, name);
    }
    assert!(matches!(Profile::load("no-such"), Err(ProfileError::Unknown(_))));
    let dir = std::env::temp_dir().join(format!("outrigger-fakes-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("p.json");
    let text = r#"{"name":"mine","engine":"openai","model":"m","fixed":{"ttft_ms":1,"tokens":2,"total_ms":3}}"#;
    std::fs::write(&file, text).unwrap();
    let mine = Profile::load(file.to_str().unwrap()).unwrap();
    assert_eq!((mine.engine, mine.model.as_str(), mine.default_output_tokens), (EngineKind::Openai, "m", 16));
    let scalars = [r#"{"nmae":"x"}"#, r#"{"max_running":0}"#, r#"{"jitter":2}"#, r#"{"decode_base_ms":-1}"#];
    let steps = [r#"{"decode_table_ms":[[4,1],[4,2]]}"#, r#"{"decode_table_ms":[[4,-1]]}"#, r#"{"chunk_tokens":0}"#];
    for bad in scalars.into_iter().chain(steps) {
        std::fs::write(&file, bad).unwrap();
        assert!(Profile::load(file.to_str().unwrap()).is_err(), "{bad}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
