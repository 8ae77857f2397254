//! A real llama-server with a random model, one thread and four slots. Its own log is the account of what it answered.

use std::{
    env,
    fs::{self, OpenOptions},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{super::Asked, LEAST_PROMPT, MODEL, SLOTS, calibration, completion};
use crate::simulated::sockets;

/// The server, and the folder of its libraries.
const PROGRAM: &str = "OUTRIGGER_LLAMA_SERVER";
const WEIGHTS: &str = "OUTRIGGER_GGUF";

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    log: PathBuf,
}

impl Server {
    pub(super) async fn start(log: &str) -> Self {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        fs::write(log, "").unwrap();
        let server = Self { child: spawn(address, log.as_ref()), address, log: log.into() };
        server.has_started().await;
        server
    }

    /// As `kill -9` does it.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again, at the same address and with the same log.
    pub(super) fn restart(&mut self) {
        self.child = spawn(self.address, &self.log);
    }

    /// Whole answers to prompts of a trace since the beginning, by its log. Probes have shorter prompts.
    pub(super) fn answered(&self) -> u64 {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        text.lines().filter_map(prompt_of).filter(|tokens| *tokens >= LEAST_PROMPT).count() as u64
    }

    /// It answers, and has been through everything that only the first request goes through.
    async fn has_started(&self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            let up = tokio::net::TcpStream::connect(self.address).await.is_ok();
            let warm = Asked { at: Duration::ZERO, prompt: calibration::PROMPTS[0], output: 4 };
            if up && sockets::ask(self.address, completion(warm), Instant::now()).await.fault.is_none() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("llama-server did not start: see {}", self.log.display());
    }
}

/// The prompt's length in a line such as `… | prompt eval time =  90.3 ms /  64 tokens (…`.
fn prompt_of(line: &str) -> Option<u64> {
    line.split_once("prompt eval time =")?.1.split_once(" / ")?.1.split_once(" tokens")?.0.trim().parse().ok()
}

fn spawn(address: SocketAddr, log: &Path) -> Child {
    let given = |name: &str| {
        PathBuf::from(env::var_os(name).unwrap_or_else(|| panic!("{name}: run ./test heavy llama-servers")))
    };
    let program = given(PROGRAM);
    Command::new(&program)
        .arg("--model")
        .arg(given(WEIGHTS))
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--alias", MODEL])
        .args(["--parallel", &SLOTS.to_string(), "--ctx-size", "8192", "--threads", "1", "--no-webui", "--metrics"])
        // No prompt is like another; what is not found costs time too.
        .args(["--no-cache-prompt", "--cache-ram", "0"])
        .env("LD_LIBRARY_PATH", program.parent().unwrap())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OpenOptions::new().append(true).open(log).unwrap())
        .spawn()
        .unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
