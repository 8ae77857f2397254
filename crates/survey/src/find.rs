//! What is at URLs: each is asked what it is and what it serves, and for the least of each kind of answer, since a list of
//! models does not say what they are for.
//!
//! Hosted APIs are not asked for answers, since those cost money. One that hangs once is not asked further.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use outrigger_core::{
    fleet::{Api, Backend, Engine},
    record::Fault,
};
use outrigger_gateway::{
    ask::ask,
    net::{Connect, Tcp},
    probe,
    upstream::{Credentials, Upstream},
};
use outrigger_import::engines::{Address, Found, FoundModel};
use outrigger_wire::engine::{Served, read_models};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::look;

/// Engines asked at once.
const AT_ONCE: usize = 16;
const CONNECT: Duration = Duration::from_secs(3);
/// For a first answer, which may have to compile something.
const ANSWER: Duration = Duration::from_secs(30);
/// More models of one engine are hardly all meant.
const MOST_MODELS: usize = 32;

/// What is asked, and with what.
#[derive(Clone, Debug)]
pub struct Asked {
    pub addresses: Vec<Address>,
    pub credentials: Credentials,
    /// Only these models; all where it is empty.
    pub models: Vec<String>,
}

/// Why a URL cannot be in a fleet, in words that go on from it and say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Unreachable(String),
    /// Something else is there, or an engine that does not serve what is asked for.
    #[error("{0}")]
    NoEngine(String),
    #[error("{0}")]
    Argument(String),
}

/// Each address with what was found there, in the order given.
pub async fn all(asked: Asked) -> Vec<(Address, Result<Found, Refusal>)> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let asked = Arc::new(asked);
    let mut tasks = JoinSet::new();
    for (index, address) in asked.addresses.iter().cloned().enumerate() {
        let (turns, asked) = (turns.clone(), asked.clone());
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            let result = look_at(&address, &asked).await;
            (index, address, result)
        });
    }
    let mut all = tasks.join_all().await;
    all.sort_by_key(|(index, ..)| *index);
    all.into_iter().map(|(_, address, result)| (address, result)).collect()
}

async fn look_at(address: &Address, asked: &Asked) -> Result<Found, Refusal> {
    let mut last = None;
    for base in address.bases() {
        let upstream = reach(&base, Engine::Openai, "", asked).map_err(Refusal::Argument)?;
        match models(&upstream).await {
            Ok(served) => return recognised(address, base, &served, asked).await,
            Err(refusal @ Refusal::Unreachable(_)) => return Err(refusal),
            // What is said at the likelier place counts.
            Err(refusal) => last = last.or(Some(refusal)),
        }
    }
    Err(last.expect("an address has a base"))
}

fn reach(base: &str, engine: Engine, model: &str, asked: &Asked) -> Result<Upstream, String> {
    let connector: Arc<dyn Connect> = Arc::new(Tcp);
    Upstream::new(&Backend::new("it", engine, base, model), asked.credentials.clone(), &connector)
}

async fn models(upstream: &Upstream) -> Result<Vec<Served>, Refusal> {
    let path = format!("{}/models", upstream.base_path);
    let reply = look::get(upstream, &path, look::page_patience(CONNECT)).await.map_err(|silent| {
        let refusal = if silent.fault == Fault::BadBody { Refusal::NoEngine } else { Refusal::Unreachable };
        refusal(format!("{silent}; {}", remedy(silent.fault)))
    })?;
    let said = look::said(upstream, &reply);
    let no = |message: String| Err(Refusal::NoEngine(message));
    match reply.status.as_u16() {
        401 | 403 => no(format!("wants another key ({said}); give the variable with it as --key-env NAME")),
        200..300 => match read_models(&reply.body) {
            Ok(served) if served.is_empty() => no("lists no model; load one and try again".to_owned()),
            Ok(served) => Ok(served),
            Err(why) => no(format!("is no OpenAI-compatible server: {path} is {why}; is this the engine's port?")),
        },
        429 | 503 => no(format!("is not ready ({said}); wait until it has loaded its model")),
        _ => no(format!("is no OpenAI-compatible server: {path} answers {said}; is this the engine's port?")),
    }
}

fn remedy(fault: Fault) -> &'static str {
    match fault {
        Fault::Dns => "correct the name, or the machine's name servers",
        Fault::Refused => "start the engine, or correct the port",
        Fault::ConnectTimeout => "is it http or https? Then look for a firewall between here and there",
        Fault::Tls => "for an authority of your own give --ca FILE",
        Fault::TotalTimeout => "it may hang or still load; look into the engine's log",
        Fault::Local => "close some, or raise the limit (`ulimit -n`)",
        _ => "is this the engine's port, and its scheme (http or https)?",
    }
}

async fn recognised(address: &Address, base: String, served: &[Served], asked: &Asked) -> Result<Found, Refusal> {
    let is_wanted = |model: &&Served| asked.models.is_empty() || asked.models.contains(&model.id);
    let wanted: Vec<Served> = served.iter().filter(is_wanted).cloned().collect();
    if wanted.is_empty() {
        let names: Vec<&str> = served.iter().take(5).map(|model| model.id.as_str()).collect();
        return Err(Refusal::NoEngine(format!("serves none of the models asked for; it has {}", names.join(", "))));
    }
    if wanted.len() > MOST_MODELS {
        let message = format!("serves {} models; choose up to {MOST_MODELS} with --model NAME", wanted.len());
        return Err(Refusal::Argument(message));
    }
    let upstream = reach(&base, Engine::Openai, "", asked).map_err(Refusal::Argument)?;
    let identity = look::recognise(&upstream, address.path(), served, CONNECT).await;
    let engine = look::engine_of(identity.engine);
    let models = grouped(&wanted);
    let apis = if address.is_hosted() { None } else { Some(apis(&base, engine, &models[0].name, asked).await) };
    let (version, slots) = (identity.version, identity.slots);
    Ok(Found { address: address.clone(), base, engine, version, slots, apis, models })
}

/// The models before their adapters, and names of one root as one model.
fn grouped(served: &[Served]) -> Vec<FoundModel> {
    let mut models: Vec<(FoundModel, Option<&str>)> = Vec::new();
    let (bases, adapters): (Vec<_>, Vec<_>) = served.iter().partition(|model| model.parent.is_none());
    let mut seen = BTreeSet::new();
    for model in bases.into_iter().chain(adapters).filter(|model| seen.insert(&model.id)) {
        let root = model.root.as_deref().filter(|_| model.parent.is_none());
        match models.iter_mut().find(|(_, of)| of.is_some() && *of == root) {
            Some((first, _)) => first.others.push(model.id.clone()),
            None => {
                let Served { id, parent, context, .. } = model.clone();
                models.push((FoundModel { name: id, others: Vec::new(), parent, context }, root));
            }
        }
    }
    models.into_iter().map(|(model, _)| model).collect()
}

/// What it answers when asked for the least.
async fn apis(base: &str, engine: Engine, model: &str, asked: &Asked) -> Vec<Api> {
    let all = [Api::Chat, Api::Completions, Api::Embeddings, Api::Responses, Api::Messages, Api::Rerank];
    let mut backend = Backend::new("it", engine, base, model);
    let Ok(upstream) = reach(base, engine, model, asked) else { return Vec::new() };
    let mut answered = Vec::new();
    for api in all {
        backend.apis = [api].into_iter().collect();
        for endpoint in probe::questions(&backend) {
            let request = probe::request(&backend, &upstream, endpoint);
            match ask(&upstream, request, look::answer_patience(CONNECT, ANSWER)).await {
                Ok(reply) if reply.status.is_success() && probe::judge(&backend, endpoint, &reply.body).is_ok() => {
                    answered.push(api);
                }
                // One that hangs here would hang at each of them.
                Err(silent) if silent.fault == Fault::TotalTimeout => return answered,
                _ => {}
            }
        }
    }
    answered
}
