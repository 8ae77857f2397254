//! `outrigger init`: a fleet file from engines that are running.
//!
//! Each URL is asked what it is and what it serves, and for the least of each kind of answer, since a list of models
//! does not say what they are for. All or nothing: a file that lacks one of the engines asked for would be served
//! without anybody noticing. Hosted APIs are not asked for answers, since those cost money.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use outrigger_gateway::{
    tls::{Unusable, authorities, backend::Pem},
    upstream::Credentials,
};
use outrigger_import::engines::{self, Address, Common, Found, FoundModel};
use outrigger_survey::find::{self, Asked};

use super::{Exit, interrupt, write_out};
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

/// Why nothing is written, and the exit code that says whose fault it is.
type Refusal = (Exit, String);

pub(super) fn run(args: &Args) -> Exit {
    match prepare(args) {
        Ok((common, asked)) => interrupt::until_interrupted(survey(args, common, asked)),
        Err((exit, message)) => {
            eprintln!("error: {message}");
            exit
        }
    }
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
    for (address, result) in find::all(asked).await {
        match result {
            Ok(engine) => {
                eprintln!("{}", summary(&engine));
                found.push(engine);
            }
            Err(refusal) => {
                eprintln!("error: {address} {refusal}");
                let exit = match refusal {
                    find::Refusal::Unreachable(_) => Exit::Environment,
                    find::Refusal::NoEngine(_) => Exit::No,
                    find::Refusal::Argument(_) => Exit::Usage,
                };
                worst = Some(worst.filter(|worst| *worst == Exit::Environment).unwrap_or(exit));
            }
        }
    }
    if let Some(exit) = worst {
        eprintln!("nothing was written, since the file would lack an engine; mend this, or leave the URL out");
        return exit;
    }
    let text = engines::write(&found, &common);
    if let Err(faults) = config::load_str(&text, Path::new(".")) {
        eprint!("{faults}");
        eprintln!("error: the file would have faults; this is a bug in Outrigger, please report it");
        return Exit::No;
    }
    deliver(args, &text)
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
