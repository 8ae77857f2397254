//! `outrigger init`: a fleet file from engines that are running.
//!
//! Each URL is asked what it is and what it serves, and for the least of each kind of answer, since a list of models
//! does not say what they are for. All or nothing: a file that lacks one of the engines asked for would be served
//! without anybody noticing. Hosted APIs are not asked for answers, since those cost money.

use std::{collections::BTreeSet, io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use outrigger_core::{
    fleet::{Api, Backend, Engine},
    record::Fault,
};
use outrigger_gateway::{
    ask::ask,
    net::Tcp,
    probe,
    tls::{Unusable, authorities, backend::Pem},
    upstream::{Credentials, Upstream},
};
use outrigger_import::engines::{self, Address, Common, Found, FoundModel};
use outrigger_wire::{
    endpoint::Endpoint,
    engine::{Served, read_models},
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Exit, look, write_out};
use crate::config;

/// Write a fleet file from engines that are running.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where an engine is, such as http://10.0.0.7:8000/v1.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// The environment variable with the key that the engines want; the file will name it.
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,
    /// A file of authorities in PEM to believe beside the machine's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Only these models, by the engines' names for them; all by default.
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Write here, where nothing may be yet, in place of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Why a URL cannot be in a fleet.
type Refusal = (Exit, String);

/// Engines asked at once.
const AT_ONCE: usize = 16;
const CONNECT: Duration = Duration::from_secs(3);
/// For a first answer, which may have to compile something.
const ANSWER: Duration = Duration::from_secs(30);
/// More models of one engine are hardly all meant.
const MOST_MODELS: usize = 32;

pub(super) fn run(args: &Args) -> Exit {
    match prepare(args) {
        Ok((common, asked)) => look::until_interrupted(survey(args, common, asked)),
        Err((exit, message)) => {
            eprintln!("error: {message}");
            exit
        }
    }
}

/// What every engine is asked with.
#[derive(Clone)]
struct Asked {
    addresses: Vec<Address>,
    credentials: Credentials,
    models: Vec<String>,
}

fn prepare(args: &Args) -> Result<(Common, Asked), Refusal> {
    let usage = |message: String| (Exit::Usage, message);
    if let Some(path) = args.output.as_ref().filter(|path| path.exists()) {
        let path = path.display();
        return Err(usage(format!("{path} is there already and is not overwritten; name another file, or remove it")));
    }
    let mut addresses = Vec::new();
    for url in &args.urls {
        let address = Address::parse(url).map_err(|why| usage(format!("`{}`: {why}", shown(url))))?;
        if addresses.contains(&address) {
            eprintln!("{address}: given twice, taken once");
        } else {
            addresses.push(address);
        }
    }
    let api_key = args.key_env.as_deref().map(key).transpose().map_err(usage)?;
    let ca = args.ca.as_ref().map(|path| {
        let read = std::fs::read(path).and_then(|pem| Ok((pem, std::path::absolute(path)?)));
        read.map_err(|e| (Exit::Environment, format!("cannot read {}: {e}; give a file of PEM", path.display())))
    });
    let (pem, path) = ca.transpose()?.unzip();
    if let (Some(pem), Some(path)) = (&pem, &path) {
        let unusable = |why: Unusable| usage(format!("{}: {why}; {}", path.display(), why.help()));
        authorities(pem).map_err(unusable)?;
    }
    let common = Common { key_variable: args.key_env.clone(), ca: path.map(|path| path.display().to_string()) };
    let credentials = Credentials { api_key, pem: Pem { ca: pem, client_cert: None }, headers: Vec::new() };
    Ok((common, Asked { addresses, credentials, models: args.models.clone() }))
}

/// A URL without what may be a password in it.
fn shown(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
    }
}

fn key(name: &str) -> Result<String, String> {
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err("--key-env takes the name of a variable and not a key; try --key-env ENGINE_KEY".to_owned());
    }
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
        _ => Err(format!("the variable {name} is not set here; `export {name}=…` first")),
    }
}

async fn survey(args: &Args, common: Common, asked: Asked) -> Exit {
    let mut found = Vec::new();
    let mut worst: Option<Exit> = None;
    for (address, result) in look_at_all(asked).await {
        match result {
            Ok(engine) => {
                eprintln!("{}", summary(&engine));
                found.push(engine);
            }
            Err((exit, message)) => {
                eprintln!("error: {address} {message}");
                worst = Some(worst.filter(|worst| *worst == Exit::Environment).unwrap_or(exit));
            }
        }
    }
    if let Some(exit) = worst {
        eprintln!("nothing was written, since the file would lack an engine; mend this, or leave the URL out");
        return exit;
    }
    let text = engines::write(&found, &common);
    if let Err(faults) = config::load_str(&text, std::path::Path::new(".")) {
        eprint!("{faults}");
        eprintln!("error: the file would have faults; this is a bug in Outrigger, please report it");
        return Exit::No;
    }
    deliver(args, &text)
}

/// Each address with what was found there, in the order given.
async fn look_at_all(asked: Asked) -> Vec<(Address, Result<Found, Refusal>)> {
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
        let upstream = reach(&base, Engine::Openai, "", asked).map_err(|why| (Exit::Usage, why))?;
        match models(&upstream).await {
            Ok(served) => return recognised(address, base, &served, asked).await,
            Err(refusal) if refusal.0 == Exit::Environment => return Err(refusal),
            // What is said at the likelier place counts.
            Err(refusal) => last = last.or(Some(refusal)),
        }
    }
    Err(last.expect("an address has a base"))
}

fn reach(base: &str, engine: Engine, model: &str, asked: &Asked) -> Result<Upstream, String> {
    let connector: Arc<dyn outrigger_gateway::net::Connect> = Arc::new(Tcp);
    Upstream::new(&Backend::new("it", engine, base, model), asked.credentials.clone(), &connector)
}

async fn models(upstream: &Upstream) -> Result<Vec<Served>, Refusal> {
    let path = format!("{}/models", upstream.base_path);
    let reply = look::get(upstream, &path, look::page_patience(CONNECT)).await.map_err(|silent| {
        let exit = if silent.fault == Fault::BadBody { Exit::No } else { Exit::Environment };
        (exit, format!("{silent}; {}", remedy(silent.fault)))
    })?;
    let said = look::said(upstream, &reply);
    let no = |message: String| Err((Exit::No, message));
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
        return Err((Exit::No, format!("serves none of the models asked for; it has {}", names.join(", "))));
    }
    if wanted.len() > MOST_MODELS {
        let message = format!("serves {} models; choose up to {MOST_MODELS} with --model NAME", wanted.len());
        return Err((Exit::Usage, message));
    }
    let upstream = reach(&base, Engine::Openai, "", asked).map_err(|why| (Exit::Usage, why))?;
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
        let endpoints: Vec<Endpoint> = probe::questions(&backend);
        for endpoint in endpoints {
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

/// One line about an engine.
fn summary(found: &Found) -> String {
    let version = found.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let model = |model: &FoundModel| match model.context {
        Some(tokens) => format!("{} ({tokens} tokens of context)", model.name),
        None => model.name.clone(),
    };
    let models: Vec<String> = found.models.iter().map(model).collect();
    let slots = found.slots.map(|slots| format!(", {slots} requests at once")).unwrap_or_default();
    let apis = match &found.apis {
        None => ", not asked for answers, which cost money".to_owned(),
        Some(apis) if apis.is_empty() => {
            "; warning: it answered nothing when asked for a token, so that `outrigger check FILE --online` will say why"
                .to_owned()
        }
        Some(apis) => format!(", answers {}", apis.iter().map(|api| api.as_str()).collect::<Vec<_>>().join(" ")),
    };
    format!("{}: {}{version} with {}{slots}{apis}", found.base, found.engine.as_str(), models.join(", "))
}

/// To the file or to standard output, and what to do next.
fn deliver(args: &Args, text: &str) -> Exit {
    let name = match &args.output {
        None => {
            let written = write_out(text);
            if written != Exit::Yes {
                return written;
            }
            "fleet.yaml".to_owned()
        }
        Some(path) => {
            // Asked of the system again, since somebody may have been faster.
            let created = std::fs::File::options().write(true).create_new(true).open(path);
            if let Err(e) = created.and_then(|mut file| file.write_all(text.as_bytes())) {
                eprintln!("error: cannot write {}: {e}; name a file that can be made", path.display());
                return Exit::Environment;
            }
            path.display().to_string()
        }
    };
    let saved = if args.output.is_some() { "written to" } else { "as" };
    eprintln!(
        "next, with the file {saved} {name}: outrigger check {name} --online, then outrigger serve --fleet {name}"
    );
    Exit::Yes
}
