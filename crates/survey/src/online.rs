//! A fleet's backends, each asked whether it is what the file says, and those of one model asked the same questions.
//!
//! A backend is judged as a probe of the gateway judges it: by one real generation and by the name of the model in the
//! answer. Questions are put to one backend one after the other, because what else is in a batch changes the numbers
//! and so the answers; backends are asked side by side. Backends that are billed by the token get the one generation
//! and nothing else, unless they are to be compared too.
//!
//! Edges: a backend of several models is asked once. One that stops answering is not asked further, and says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use outrigger_core::{
    fleet::{Api, Backend, BackendId, Engine, Fleet, Model, ModelId},
    record::Fault,
};
use outrigger_gateway::{
    ask::{Reply, Unanswered, ask},
    net::{Clock, Connect, Tcp},
    probe,
    upstream::{Credentials, Upstream},
};
use outrigger_wire::{
    endpoint::Endpoint,
    engine::{Identity, Served, read_models},
    response,
};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    answers::{self, Ability},
    compare::Answers,
    look,
    questions::{self, PROMPTS},
};

/// Backends asked at once.
const AT_ONCE: usize = 16;

/// How to ask.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// For one answer.
    pub answer: Duration,
    /// Compare backends too that are billed by the token.
    pub metered_too: bool,
}

/// What one backend showed.
#[derive(Clone, Debug)]
pub struct Seen {
    pub trouble: Option<Trouble>,
    /// What is odd and yet serves.
    pub oddities: Vec<Trouble>,
    /// Of its pages; nothing where it was not asked for them.
    pub identity: Identity,
    pub context: Option<u64>,
    /// How long the one token took.
    pub took: Duration,
    /// Present where it was to be compared, and serves.
    pub answers: Option<Answers>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unreachable,
    /// It wants another key.
    Key,
    /// It answers, and not with a generation.
    Fails,
    OtherModel,
    OtherEngine,
    Unhealthy,
}

/// What is wrong with a backend; the message goes on from its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub kind: Kind,
    pub message: String,
    pub help: String,
}

/// The engine that showed itself, if one did.
pub fn engine(identity: &Identity) -> Option<Engine> {
    identity.engine.map(|engine| look::engine_of(Some(engine)))
}

/// The backends that a model is compared on: those that serve it itself, chat, and are not billed by the token.
pub fn compared(fleet: &Fleet, model: &Model, manner: Manner) -> Vec<BackendId> {
    let mut seen = BTreeSet::new();
    let own = model.tiers.iter().filter(|tier| !tier.substitute).flat_map(|tier| &tier.split);
    let ids: Vec<BackendId> = own.map(|share| share.backend).filter(|id| seen.insert(*id)).collect();
    let counts = |id: &BackendId| {
        let backend = fleet.backend(*id);
        backend.apis.contains(Api::Chat) && (backend.token_price.is_none() || manner.metered_too)
    };
    let ids: Vec<BackendId> = ids.into_iter().filter(counts).collect();
    if ids.len() > 1 { ids } else { Vec::new() }
}

/// The backends that are left out of that because they are billed by the token.
pub fn left_out(fleet: &Fleet, model: &Model, manner: Manner) -> Vec<BackendId> {
    let taken = compared(fleet, model, manner);
    let all = compared(fleet, model, Manner { metered_too: true, ..manner });
    all.into_iter().filter(|id| !taken.contains(id) && fleet.backend(*id).token_price.is_some()).collect()
}

/// Asks all backends, in the order of the fleet. Fails with what is wrong with how one is to be reached.
pub async fn look_at(
    fleet: Arc<Fleet>,
    credentials: Vec<Credentials>,
    manner: Manner,
) -> Result<Vec<Seen>, Vec<(BackendId, String)>> {
    let connector: Arc<dyn Connect> = Arc::new(Tcp);
    let upstreams = fleet.backends.iter().zip(credentials).enumerate().map(|(index, (backend, credentials))| {
        Upstream::new(backend, credentials, &connector).map_err(|why| (BackendId(index as u16), why))
    });
    let (upstreams, faults): (Vec<_>, Vec<_>) = upstreams.partition(Result::is_ok);
    if !faults.is_empty() {
        return Err(faults.into_iter().filter_map(Result::err).collect());
    }
    let models = (0..fleet.models.len()).map(|index| fleet.model(ModelId(index as u16)));
    let wanted: BTreeSet<BackendId> = models.flat_map(|model| compared(&fleet, model, manner)).collect();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (index, upstream) in upstreams.into_iter().flatten().enumerate() {
        let (turns, fleet) = (turns.clone(), fleet.clone());
        let is_compared = wanted.contains(&BackendId(index as u16));
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            (index, Look { backend: &fleet.backends[index], upstream: &upstream, manner }.run(is_compared).await)
        });
    }
    let all: BTreeMap<usize, Seen> = tasks.join_all().await.into_iter().collect();
    Ok(all.into_values().collect())
}

/// One backend being looked at.
struct Look<'a> {
    backend: &'a Backend,
    upstream: &'a Upstream,
    manner: Manner,
}

impl Look<'_> {
    async fn run(&self, is_compared: bool) -> Seen {
        let began = Instant::now();
        let trouble = self.generation().await.err();
        let mut seen = Seen {
            took: began.elapsed(),
            oddities: Vec::new(),
            identity: Identity::default(),
            context: None,
            answers: None,
            trouble,
        };
        if seen.trouble.is_some() {
            return seen;
        }
        let served = self.models().await;
        seen.context = served.iter().find(|model| model.id == self.backend.model).and_then(|model| model.context);
        if self.backend.token_price.is_none() {
            seen.identity = look::recognise(self.upstream, self.root(), &served, self.connect()).await;
            seen.oddities.extend(self.other_engine(&seen.identity));
            seen.oddities.extend(self.health().await);
        }
        if is_compared {
            seen.answers = Some(self.answers().await);
        }
        seen
    }

    fn connect(&self) -> Duration {
        self.backend.timeouts.connect.unwrap_or(Duration::from_secs(1))
    }

    /// The path of its pages: that of its port, or of whoever stands before it.
    fn root(&self) -> &str {
        self.upstream.base_path.strip_suffix("/v1").unwrap_or(&self.upstream.base_path)
    }

    async fn models(&self) -> Vec<Served> {
        let path = format!("{}/models", self.upstream.base_path);
        let reply = look::get(self.upstream, &path, look::page_patience(self.connect())).await;
        reply.ok().and_then(|reply| read_models(&reply.body).ok()).unwrap_or_default()
    }

    /// One real generation, judged as a probe is.
    async fn generation(&self) -> Result<(), Trouble> {
        let questions = probe::questions(self.backend);
        let mut last = Ok(());
        for endpoint in questions {
            last = self.asked_for_one(endpoint).await;
            if !matches!(&last, Err(trouble) if trouble.kind == Kind::OtherModel) {
                return last;
            }
        }
        if last.is_ok() {
            // Nothing small can be asked for: that it lists its models has to do.
            let path = format!("{}/models", self.upstream.base_path);
            look::get(self.upstream, &path, look::page_patience(self.connect())).await.map_err(|e| unanswered(&e))?;
        }
        last
    }

    async fn asked_for_one(&self, endpoint: Endpoint) -> Result<(), Trouble> {
        let request = probe::request(self.backend, self.upstream, endpoint);
        let patience = look::answer_patience(self.connect(), self.manner.answer);
        let reply = ask(self.upstream, request, patience).await.map_err(|silent| unanswered(&silent))?;
        let verdict = if reply.status.is_success() {
            probe::judge(self.backend, endpoint, &reply.body)
        } else {
            probe::refusal(reply.status, &reply.headers, Clock::start())
        };
        match verdict {
            Ok(()) => Ok(()),
            Err(Fault::WrongModel) => Err(self.other_model(endpoint, &reply).await),
            Err(fault) => Err(self.failed(fault, &reply)),
        }
    }

    async fn other_model(&self, endpoint: Endpoint, reply: &Reply) -> Trouble {
        let served = self.models().await;
        let asked = &self.backend.model;
        let answered = response::inspect_body(endpoint, &reply.body).ok().and_then(|view| view.model);
        let answered = answered.filter(|_| reply.status.is_success()).map(|name| self.upstream.without_secrets(&name));
        let message = match &answered {
            Some(name) => format!("answers as `{}` where `{}` was asked for", short(name), short(asked)),
            None => format!("does not serve `{}` ({})", short(asked), look::said(self.upstream, reply)),
        };
        let help = correction(asked, answered.as_deref(), &served);
        Trouble { kind: Kind::OtherModel, message, help }
    }

    fn failed(&self, fault: Fault, reply: &Reply) -> Trouble {
        let said = look::said(self.upstream, reply);
        let (kind, message, help) = match fault {
            Fault::Auth => (
                Kind::Key,
                format!("takes the key for a wrong one ({said})"),
                "correct `api_key`, or what it refers to",
            ),
            Fault::Overloaded { status: 429, .. } => {
                (Kind::Fails, format!("turns requests away ({said})"), "wait, or raise its limits, and check again")
            }
            Fault::Overloaded { .. } => {
                (Kind::Fails, format!("is not ready ({said})"), "wait until it has loaded its model, and check again")
            }
            Fault::BadBody => (
                Kind::Fails,
                format!("answers a chat with {said}"),
                "that is no OpenAI-compatible answer: correct `url`, which may be a web page's or a proxy's",
            ),
            _ => (Kind::Fails, format!("cannot generate ({said})"), "look into the engine's log"),
        };
        Trouble { kind, message, help: help.to_owned() }
    }

    fn other_engine(&self, identity: &Identity) -> Option<Trouble> {
        let engine = look::engine_of(identity.engine);
        let is_other = identity.engine.is_some() && engine != self.backend.engine;
        is_other.then(|| Trouble {
            kind: Kind::OtherEngine,
            message: format!("is {}, and the file says {}", engine.as_str(), self.backend.engine.as_str()),
            help: format!("write `engine: {}`, so that its metrics are read", engine.as_str()),
        })
    }

    /// That an engine generates and calls itself ill is worth knowing: an orchestrator may be about to end it.
    async fn health(&self) -> Option<Trouble> {
        if self.backend.engine == Engine::Openai {
            return None;
        }
        // SGLang and TGI generate a token for this.
        let patience = look::answer_patience(self.connect(), self.manner.answer);
        let message = match look::get(self.upstream, &format!("{}/health", self.root()), patience).await {
            Ok(reply) if reply.status.is_success() || reply.status.as_u16() == 404 => return None,
            Ok(reply) => format!("generates, and its /health says {}", look::said(self.upstream, &reply)),
            Err(silent) => format!("generates, and its /health {silent}"),
        };
        Some(Trouble { kind: Kind::Unhealthy, message, help: "look into the engine's log".to_owned() })
    }

    /// All questions, until one gets no answer.
    async fn answers(&self) -> Answers {
        let mut all = Answers::default();
        let mut logprobs = true;
        let (engine, model) = (self.backend.engine, self.backend.model.as_str());
        for prompt in &PROMPTS {
            let mut asked = self.chat(questions::prompt(prompt, engine, model, logprobs)).await;
            if logprobs && matches!(&asked, Ok(reply) if reply.status.is_client_error()) {
                logprobs = false;
                asked = self.chat(questions::prompt(prompt, engine, model, logprobs)).await;
            }
            match asked {
                Ok(reply) => all.prompts.push(answers::answer(&reply.body).filter(|_| reply.status.is_success())),
                Err(silent) => {
                    all.gave_up = Some(format!("{silent} (the prompt `{}`)", prompt.name));
                    return all;
                }
            }
        }
        let missing = PROMPTS.iter().zip(&all.prompts).filter(|(_, answer)| answer.is_none()).map(|(p, _)| p.name);
        let missing: Vec<&str> = missing.collect();
        if !missing.is_empty() {
            all.gave_up = Some(format!("gives no answer to {}", missing.join(", ")));
        }
        for (body, judge, into) in [
            (questions::tool(engine, model), answers::tool_call as fn(&[u8]) -> Ability, &mut all.tool),
            (questions::form(engine, model), answers::in_form, &mut all.form),
        ] {
            match self.chat(body).await {
                Ok(reply) if reply.status.is_success() => *into = Some(judge(&reply.body)),
                Ok(reply) => *into = Some(Ability::Refused(look::said(self.upstream, &reply))),
                Err(silent) => {
                    all.gave_up = Some(silent.to_string());
                    break;
                }
            }
        }
        all
    }

    async fn chat(&self, body: Value) -> Result<Reply, Unanswered> {
        let path = format!("{}{}", self.upstream.base_path, Endpoint::Chat.path());
        let mut request = self.upstream.request(&path, Bytes::from(body.to_string()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(probe::HEADER, HeaderValue::from_static("1"));
        ask(self.upstream, request, look::answer_patience(self.connect(), self.manner.answer)).await
    }
}

/// What to do about an answer by another name, of a server that lists these. One with several names for what it has loaded
/// answers by the first of them: vLLM does, with several `--served-model-name`.
fn correction(asked: &str, answered: Option<&str>, served: &[Served]) -> String {
    let root = |name: &str| served.iter().find(|model| model.id == name)?.root.as_deref();
    if let Some(answered) = answered
        && root(answered).is_some_and(|loaded| root(asked) == Some(loaded))
    {
        let (answered, asked) = (short(answered), short(asked));
        return format!(
            "both are names of what it has loaded, and it answers by the first: write `model: {answered}`, and \
             `{asked}` under `aliases` of the model if clients ask for that"
        );
    }
    if served.is_empty() {
        return "correct `model` or `url`, or `apis` if it serves something else than chats".to_owned();
    }
    let names: Vec<&str> = served.iter().take(5).map(|model| model.id.as_str()).collect();
    format!("it lists {}: correct `model`, or start the engine with that one", names.join(", "))
}

fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn unanswered(silent: &Unanswered) -> Trouble {
    let (kind, help) = match silent.fault {
        Fault::Dns => (Kind::Unreachable, "correct the host in `url`, or the machine's name servers"),
        Fault::Refused => (Kind::Unreachable, "start the engine, or correct the port in `url`"),
        Fault::ConnectTimeout => (
            Kind::Unreachable,
            "look for a firewall in between, and whether `url` is http or https; `timeouts.connect` is how long to try",
        ),
        Fault::Tls => (Kind::Unreachable, "correct `ca`, `client_cert` or `http`, or the certificate there"),
        Fault::TotalTimeout => {
            (Kind::Fails, "it hangs or is very slow: look into the engine's log; --timeout gives it more")
        }
        Fault::BadBody => (Kind::Fails, "correct `url`, which seems to be something else's"),
        Fault::Cut | Fault::Reset => {
            (Kind::Fails, "the engine or a proxy before it ends connections: look into its log")
        }
        _ => (Kind::Unreachable, "look into the log of the engine and of this machine"),
    };
    Trouble { kind, message: silent.to_string(), help: help.to_owned() }
}
