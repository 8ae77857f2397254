//! From the file as written to the fleet as meant: names looked up, units parsed, defaults filled in.
//!
//! What the schema cannot say is checked here, in the same step that makes the value, so that no check can be left out
//! for a value that is used. Where something is at fault a stand-in goes on, since the fleet is thrown away in the end
//! if there was any error; a value that the structural check has cut out is not reported again.

mod backends;
mod clouds;
mod gateway;
mod keys;
mod models;
mod reach;
mod routes;
mod scale;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use outrigger_core::{
    cost,
    fleet::{Certificate, CloudId, Fleet, SecretRef},
};

use super::{
    collect::{At, shown},
    fault::{Code, Severity},
    raw::{self, Named},
    values::{self, Reference},
    walk::nearest,
};

/// Ids are 16 bits.
const MOST_THINGS: usize = 65_535;
/// Sets of clouds are bit sets of 128.
const MOST_CLOUDS: usize = 128;

/// What every part of the file is resolved against.
struct Context<'a> {
    raw: &'a raw::Fleet,
    root: At<'a>,
    base: &'a Path,
    /// How bad a key is that everybody knows.
    weak: Severity,
    references: RefCell<Vec<Reference>>,
    certificates: RefCell<Vec<Pem>>,
    hashes: RefCell<Vec<Reference>>,
}

/// What files of PEM are for.
#[derive(Clone, Debug)]
pub(crate) enum Pem {
    /// A chain and its key.
    Certificate {
        chain: Reference,
        key: Reference,
    },
    Authorities(Reference),
}

/// What the fleet refers to outside the file.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) references: Vec<Reference>,
    pub(crate) certificates: Vec<Pem>,
    /// Files of keys' hashes.
    pub(crate) hashes: Vec<Reference>,
}

/// The fleet; a stand-in if `faults` has errors afterwards.
pub(crate) fn resolve(
    raw: &raw::Fleet,
    root: &At<'_>,
    (base, weak): (&Path, Severity),
    digest: String,
) -> (Fleet, Outside) {
    let (references, certificates, hashes) = (RefCell::default(), RefCell::default(), RefCell::default());
    let context = Context { raw, root: root.clone(), base, weak, references, certificates, hashes };
    let mut gateway = gateway::resolve(&context);
    let clouds = clouds::clouds(&context);
    gateway.egress_usd_per_gb = cost::gateway_egress(gateway.cloud.as_deref(), &clouds);
    let pools = clouds::pools(&context);
    let backends = backends::resolve(&context, &pools);
    backends::check_caps(&context, &backends, gateway.replicas.count());
    let models = models::resolve(&context, &backends);
    let routes = routes::resolve(&context);
    let keys = keys::resolve(&context, &models, &routes);
    clouds::check_spend_limits(&context, &clouds, &backends);
    let fleet = Fleet { digest, gateway, clouds, pools, backends, models, keys, routes };
    let outside = Outside {
        references: context.references.into_inner(),
        certificates: context.certificates.into_inner(),
        hashes: context.hashes.into_inner(),
    };
    (fleet, outside)
}

impl<'a> Context<'a> {
    /// The things of one section, each with its place. Their names are checked here.
    fn each<T>(
        &self,
        section: &str,
        things: Option<&'a Named<T>>,
        most: usize,
    ) -> Vec<(&'a str, Option<&'a T>, At<'a>)> {
        let at = self.root.key(section);
        let things = things.map(|named| named.0.as_slice()).unwrap_or_default();
        if things.len() > most {
            let message = format!("{} {section} are more than {most}", things.len());
            at.error_at_key(
                Code::TooMany,
                message,
                "split the fleet into several files, each with a gateway of its own",
            );
        }
        things
            .iter()
            .map(|(name, thing)| {
                let at = at.key(name);
                check_name(name, &at);
                (name.as_str(), thing.as_ref(), at)
            })
            .collect()
    }

    fn cloud(&self, name: &str, at: &At<'_>) -> Option<CloudId> {
        let id = look_up(self.raw.clouds.as_ref(), name, at, "cloud", Code::UnknownCloud);
        id.map(CloudId)
    }

    fn secret(&self, text: &raw::Secret, at: &At<'_>) -> Option<SecretRef> {
        let secret = values::secret(&text.0, self.base, at)?;
        self.note(secret.clone(), at);
        Some(secret)
    }

    /// A certificate and its key, where both are written.
    fn certificate(&self, raw: &raw::Certificate, at: &At<'_>) -> Option<Certificate> {
        let file = |text: &Option<raw::Pem>, key: &str| {
            let (text, at) = (text.as_ref()?, at.key(key));
            let path = values::pem(&text.0, self.base, &at)?;
            Some((path.clone(), self.note(SecretRef::File(path), &at)))
        };
        let (chain, key) = (file(&raw.cert, "cert"), file(&raw.key, "key"));
        let ((chain, chain_at), (key, key_at)) = (chain?, key?);
        self.certificates.borrow_mut().push(Pem::Certificate { chain: chain_at, key: key_at });
        Some(Certificate { chain, key })
    }

    fn authorities(&self, text: &raw::Pem, at: &At<'_>) -> Option<PathBuf> {
        let path = values::pem(&text.0, self.base, at)?;
        let noted = self.note(SecretRef::File(path.clone()), at);
        self.certificates.borrow_mut().push(Pem::Authorities(noted));
        Some(path)
    }

    fn note(&self, to: SecretRef, at: &At<'_>) -> Reference {
        let reference = Reference { to, path: at.path.clone(), span: at.span() };
        self.references.borrow_mut().push(reference.clone());
        reference
    }
}

/// The index of `name` in a section, or a fault.
fn look_up<T>(things: Option<&Named<T>>, name: &str, at: &At<'_>, kind: &str, code: Code) -> Option<u16> {
    let index = things.and_then(|things| things.names().position(|known| known == name));
    if index.is_none() {
        let known: Vec<&str> = things.map(|things| things.names().collect()).unwrap_or_default();
        report_unknown(&known, name, at, kind, code);
    }
    index.and_then(|index| u16::try_from(index).ok())
}

fn report_unknown(known: &[&str], name: &str, at: &At<'_>, kind: &str, code: Code) {
    let message = format!("there is no {kind} `{}`", shown(name));
    let help = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("add it under `{kind}s:`"),
        None => format!("add it under `{kind}s:`, or name one of: {}", few(known)),
    };
    at.error(code, message, help);
}

/// The first few of many names.
fn few(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let rest = if names.len() > SHOWN { ", …" } else { "" };
    names[..names.len().min(SHOWN)].join(", ") + rest
}

fn check_name(name: &str, at: &At<'_>) {
    const LONGEST: usize = 63;
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts_well && name.bytes().all(is_inner) && name.len() <= LONGEST {
        return;
    }
    let mut better: String = name
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_alphanumeric())
        .collect();
    better.truncate(LONGEST);
    let rule =
        "names have lower-case letters, digits, `.`, `_` and `-`, start with a letter or digit, and have at most 63";
    let help = if better.is_empty() { rule.to_owned() } else { format!("write `{better}`: {rule}") };
    at.error_at_key(Code::BadName, format!("`{}` is not a name", shown(name)), help);
}

/// The items of a list that were not at fault, each with its place.
fn items<'a, T>(list: Option<&'a raw::List<T>>, at: &At<'a>) -> Vec<(&'a T, At<'a>)> {
    let items = list.map(|list| list.0.as_slice()).unwrap_or_default();
    items.iter().enumerate().filter_map(|(i, item)| Some((item.as_ref()?, at.index(i)))).collect()
}
