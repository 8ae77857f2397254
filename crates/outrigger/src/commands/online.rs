//! `outrigger check --online`: every backend asked, and those of one model compared.
//!
//! What is asked and how it is compared is in [`outrigger_survey`]; here it becomes faults at the places of the file,
//! tables for people and JSON for programs.

use std::{sync::Arc, time::Duration};

use outrigger_core::fleet::{BackendId, Engine, Fleet, Model};
use outrigger_survey::{
    compare::{self, Answers, Member, compare, with_the_first},
    online::{self, Seen, Trouble, compared, left_out},
    questions::PROMPTS,
    table,
};
use serde_json::{Map, Value, json};

use super::{Exit, check, colour_on_stderr, secrets, write_out};
use crate::config::{Code, Loaded, Severity};

/// How to ask.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Manner {
    /// Compare backends too that are billed by the token.
    #[arg(long, requires = "online")]
    parity_all: bool,
    /// Seconds that one answer may take.
    #[arg(long, requires = "online", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

pub(super) async fn run(mut loaded: Loaded, manner: Manner, json: bool) -> Exit {
    let credentials = match secrets::resolve(&loaded.fleet) {
        Ok(secrets) => secrets.backends,
        Err(faults) => {
            for fault in faults {
                let (message, help) = fault.split_once("; ").unwrap_or((&fault, "put it where `serve` runs"));
                let said = (message.to_owned(), help.to_owned());
                loaded.report(Severity::Error, Code::SecretAbsent, ("", ""), said);
            }
            return check::refuse(&loaded.warnings, json);
        }
    };
    let fleet = Arc::new(loaded.fleet.clone());
    let manner = online::Manner { answer: Duration::from_secs(manner.timeout), metered_too: manner.parity_all };
    if !json {
        eprintln!(
            "asking {} for a token, and comparing those of one model…",
            check::many(fleet.backends.len(), "backend")
        );
    }
    let seen = match online::look_at(fleet.clone(), credentials, manner).await {
        Ok(seen) => seen,
        Err(faults) => {
            for (id, why) in faults {
                let said = (why, "correct what it refers to, in the file or where `serve` runs".to_owned());
                loaded.report(Severity::Error, Code::BadHeader, ("backends", &fleet.backend(id).name), said);
            }
            return check::refuse(&loaded.warnings, json);
        }
    };
    report_backends(&mut loaded, &seen);
    let parities: Vec<Parity<'_>> =
        fleet.models.iter().filter_map(|model| parity(&fleet, model, &seen, manner)).collect();
    for parity in &parities {
        for found in compare(&parity.model.name, &parity.members) {
            let said = (found.message, found.help);
            loaded.report(Severity::Warning, code_of_difference(found.kind), ("models", &parity.model.name), said);
        }
    }
    let exit = if loaded.warnings.count(Severity::Error) > 0 { Exit::No } else { Exit::Yes };
    let written = if json {
        write_out(&format!("{}\n", to_json(&loaded, &fleet, &seen, &parities)))
    } else {
        eprint!("{}", loaded.warnings.render(colour_on_stderr()));
        for model in &fleet.models {
            for id in left_out(&fleet, model, manner) {
                let name = &fleet.backend(id).name;
                eprintln!("{name} is not compared for {}: it is billed by the token (--parity-all)", model.name);
            }
        }
        write_out(&to_tables(&loaded, &fleet, &seen, &parities))
    };
    if written == Exit::Yes { exit } else { written }
}

/// A model and those of its backends that were compared.
struct Parity<'a> {
    model: &'a Model,
    members: Vec<Member<'a>>,
}

fn parity<'a>(fleet: &'a Fleet, model: &'a Model, seen: &'a [Seen], manner: online::Manner) -> Option<Parity<'a>> {
    let member = |id: BackendId| -> Option<Member<'a>> {
        let (backend, seen) = (fleet.backend(id), &seen[id.index()]);
        let answers: &Answers = seen.answers.as_ref()?;
        Some(Member { name: &backend.name, engine: engine(fleet, id, seen), context: seen.context, answers })
    };
    let members: Vec<Member<'_>> = compared(fleet, model, manner).into_iter().filter_map(member).collect();
    (members.len() > 1).then_some(Parity { model, members })
}

/// The engine as it showed itself, or as the file says.
fn engine(fleet: &Fleet, id: BackendId, seen: &Seen) -> String {
    let name = online::engine(&seen.identity).unwrap_or(fleet.backend(id).engine).as_str();
    seen.identity.version.as_ref().map_or_else(|| name.to_owned(), |version| format!("{name} {version}"))
}

fn report_backends(loaded: &mut Loaded, seen: &[Seen]) {
    let names: Vec<String> = loaded.fleet.backends.iter().map(|backend| backend.name.clone()).collect();
    for (name, seen) in names.iter().zip(seen) {
        let mut report = |severity, trouble: &Trouble| {
            let said = (format!("`{name}` {}", trouble.message), trouble.help.clone());
            loaded.report(severity, code_of(trouble.kind), ("backends", name), said);
        };
        seen.trouble.iter().for_each(|trouble| report(Severity::Error, trouble));
        seen.oddities.iter().for_each(|trouble| report(Severity::Warning, trouble));
    }
}

fn code_of(kind: online::Kind) -> Code {
    match kind {
        online::Kind::Unreachable => Code::BackendUnreachable,
        online::Kind::Key => Code::BackendKey,
        online::Kind::Fails => Code::BackendFails,
        online::Kind::OtherModel => Code::BackendOtherModel,
        online::Kind::OtherEngine => Code::BackendOtherEngine,
        online::Kind::Unhealthy => Code::BackendUnhealthy,
    }
}

fn code_of_difference(kind: compare::Kind) -> Code {
    match kind {
        compare::Kind::Engine => Code::ParityEngine,
        compare::Kind::Context => Code::ParityContext,
        compare::Kind::PromptTokens => Code::ParityPromptTokens,
        compare::Kind::Answers => Code::ParityAnswers,
        compare::Kind::Tools => Code::ParityTools,
        compare::Kind::Form => Code::ParityJsonSchema,
        compare::Kind::Incomplete => Code::ParityIncomplete,
    }
}

fn to_tables(loaded: &Loaded, fleet: &Fleet, seen: &[Seen], parities: &[Parity<'_>]) -> String {
    let row = |(index, seen): (usize, &Seen)| {
        let id = BackendId(index as u16);
        let backend = fleet.backend(id);
        let (name, model) = (backend.name.as_str(), backend.model.as_str());
        let took = seen.trouble.is_none().then_some(seen.took);
        table::Row { name, engine: engine(fleet, id, seen), model, context: seen.context, took }
    };
    let rows: Vec<table::Row<'_>> = seen.iter().enumerate().map(row).collect();
    let tables = parities.iter().map(|parity| table::parity(&parity.model.name, &parity.members) + "\n");
    format!("{}\n{}{}", table::backends(&rows), tables.collect::<String>(), check::summary(loaded))
}

fn to_json(loaded: &Loaded, fleet: &Fleet, seen: &[Seen], parities: &[Parity<'_>]) -> Value {
    let mut all = loaded.warnings.to_json();
    let backend = |(index, seen): (usize, &Seen)| {
        let backend = fleet.backend(BackendId(index as u16));
        json!({
            "backend": backend.name,
            "model": backend.model,
            "ok": seen.trouble.is_none(),
            "fault": seen.trouble.as_ref().map(|trouble| code_of(trouble.kind).as_str()),
            "engine": online::engine(&seen.identity).map(Engine::as_str),
            "version": seen.identity.version,
            "context": seen.context,
            "took_ms": seen.took.as_millis() as u64,
        })
    };
    all["backends"] = seen.iter().enumerate().map(backend).collect();
    all["parity"] = parities.iter().map(parity_json).collect();
    all
}

fn parity_json(parity: &Parity<'_>) -> Value {
    let members = &parity.members;
    let by_name = |of: &dyn Fn(usize, &Member<'_>) -> Value| -> Map<String, Value> {
        members.iter().enumerate().map(|(index, member)| (member.name.to_owned(), of(index, member))).collect()
    };
    let prompt = |index: usize| {
        let alike = |at: usize, _: &Member<'_>| match with_the_first(members, at, index) {
            Some(agreed) => json!({ "same": agreed.same, "of": agreed.of }),
            None => Value::Null,
        };
        json!({
            "name": PROMPTS[index].name,
            "prompt_tokens": by_name(&|_, member| json!(member.prompt_tokens(index))),
            "alike": by_name(&alike),
        })
    };
    json!({
        "model": parity.model.name,
        "backends": members.iter().map(|member| member.name).collect::<Vec<_>>(),
        "engine": by_name(&|_, member| json!(member.engine)),
        "context": by_name(&|_, member| json!(member.context)),
        "prompts": (0..PROMPTS.len()).map(prompt).collect::<Vec<_>>(),
        "tools": by_name(&|_, member| json!(table::word(member.answers.tool.as_ref()))),
        "json_schema": by_name(&|_, member| json!(table::word(member.answers.form.as_ref()))),
    })
}
