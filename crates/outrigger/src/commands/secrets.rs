//! What a fleet's references stand for: read once, when `serve` starts or reloads, and all that is missing named at once.

use std::path::Path;

use outrigger_core::fleet::{Backend, Certificate, Fleet, HeaderText, KeyHash, SecretRef};
use outrigger_gateway::{live::Secrets, tls::backend::Pem, upstream::Credentials};

use crate::config::weak;

/// Gives the value of an environment variable.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Looks every secret up, and names all that are not there.
pub(super) fn resolve(fleet: &Fleet) -> Result<Secrets, Vec<String>> {
    resolve_with(fleet, &|name| std::env::var(name).ok())
}

/// The same with other variables than the environment's.
pub(super) fn resolve_with(fleet: &Fleet, variable: Variable<'_>) -> Result<Secrets, Vec<String>> {
    let mut faults = Vec::new();
    let backends = fleet.backends.iter().map(|backend| credentials(fleet, backend, variable, &mut faults)).collect();
    let key_hashes =
        fleet.keys.iter().map(|key| key.sha256.iter().flat_map(|hash| hashes(hash, &mut faults)).collect()).collect();
    if faults.is_empty() {
        return Ok(Secrets { backends, key_hashes });
    }
    faults.sort();
    faults.dedup();
    Err(faults)
}

/// What a backend is reached with. A fault leaves a gap, since nothing is served then.
fn credentials(fleet: &Fleet, backend: &Backend, variable: Variable<'_>, faults: &mut Vec<String>) -> Credentials {
    let api_key = backend.api_key.as_ref().or(fleet.cloud(backend.cloud).api_key.as_ref());
    let api_key = api_key.and_then(|reference| keep(secret(reference, variable), faults));
    let ca = backend.reach.ca.as_ref().and_then(|path| keep(bytes(path), faults));
    let client_cert = backend.reach.client_cert.as_ref().and_then(|files| pair(files, faults));
    let header = |text: &HeaderText| match text {
        HeaderText::Plain(text) => text.clone(),
        HeaderText::Secret(reference) => keep(secret(reference, variable), faults).unwrap_or_default(),
    };
    let headers = backend.reach.headers.iter().map(|(_, text)| text).map(header).collect();
    Credentials { api_key, pem: Pem { ca, client_cert }, headers }
}

fn pair(files: &Certificate, faults: &mut Vec<String>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (chain, key) = (keep(bytes(&files.chain), faults), keep(bytes(&files.key), faults));
    Some((chain?, key?))
}

fn keep<T>(result: Result<T, String>, faults: &mut Vec<String>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}; put the file where `serve` runs", path.display()))
}

fn secret(reference: &SecretRef, variable: Variable<'_>) -> Result<String, String> {
    match reference {
        SecretRef::Env(name) => {
            variable(name).ok_or_else(|| format!("the variable {name} is not set; set it where `serve` runs"))
        }
        SecretRef::File(path) => match std::fs::read_to_string(path) {
            Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            Ok(_) => Err(format!("{} is empty; put the secret into it", path.display())),
            Err(e) => Err(format!("cannot read {}: {e}; put the secret into it", path.display())),
        },
    }
}

/// The hashes that an entry stands for: a file holds one per line.
fn hashes(entry: &KeyHash, faults: &mut Vec<String>) -> Vec<[u8; 32]> {
    let path = match entry {
        KeyHash::Literal(hash) => return vec![*hash],
        KeyHash::File(path) => path,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            faults.push(format!(
                "cannot read {}: {e}; `outrigger key new NAME` prints a key and its hash",
                path.display()
            ));
            return Vec::new();
        }
    };
    let Ok(hashes) = weak::hashes(&text) else {
        faults.push(format!("{} must hold SHA-256 hashes of 64 hex digits, one per line", path.display()));
        return Vec::new();
    };
    for (line, hash) in &hashes {
        if let Some(key) = weak::known_key(hash) {
            let (path, message, help) = (path.display(), weak::message(key), weak::HELP);
            faults.push(format!("{path}, line {line}: {message}; {help}"));
        }
    }
    hashes.into_iter().map(|(_, hash)| hash).collect()
}
