//! Whether the files of PEM that a fleet names hold what they should.
//!
//! Only `check` looks into them, and `serve` when it reads them: the fleet is the same whatever they hold. A file that
//! is not here is no fault of the fleet's, since it may be there where `serve` runs; one that is here and of no use is.
//! A private key is read for one question, whether it belongs to its certificate, and never shown.

use std::{io, path::Path};

use outrigger_core::fleet::SecretRef;
use outrigger_gateway::tls::{Unusable, authorities, certified_key};

use super::{Code, Loaded, Severity, resolve::Pem, values::Reference};

impl Loaded {
    /// Adds an error for each certificate, key or authority that is there and cannot be used, and a warning for each that
    /// `read` is not allowed to read.
    pub fn examine_certificates(&mut self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) {
        let found: Vec<Finding> = self.outside.certificates.iter().filter_map(|pem| examine(pem, &read)).collect();
        for Finding { at, severity, message, help } in found {
            self.warnings.add(severity, Code::BadCertificate, &at.path, at.span, (message, help));
        }
    }
}

struct Finding {
    at: Reference,
    severity: Severity,
    message: String,
    help: String,
}

/// Why one could not be examined; `None` when there is nothing to say about it here.
type Unread = Option<Finding>;

fn examine(pem: &Pem, read: &impl Fn(&Path) -> io::Result<Vec<u8>>) -> Option<Finding> {
    let open = |at: &Reference| bytes(at, read);
    let examined = match pem {
        Pem::Certificate { chain, key } => open(chain)
            .and_then(|bytes| Ok((bytes, open(key)?)))
            .map(|(bytes, key_bytes)| certified_key(&bytes, &key_bytes).err())
            .map(|why| why.map(|why| unusable(if why.is_the_keys() { key } else { chain }, why))),
        Pem::Authorities(at) => open(at).map(|bytes| authorities(&bytes).err().map(|why| unusable(at, why))),
    };
    examined.unwrap_or_else(|unread| unread)
}

fn bytes(at: &Reference, read: &impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Vec<u8>, Unread> {
    let SecretRef::File(path) = &at.to else { return Err(None) };
    read(path).map_err(|e| {
        // One that is not here has been said to be absent.
        (e.kind() != io::ErrorKind::NotFound).then(|| Finding {
            at: at.clone(),
            severity: Severity::Warning,
            message: format!("`{}` cannot be read here: {e}", path.display()),
            help: "let whoever runs `serve` read it, or run `check` as they do".to_owned(),
        })
    })
}

fn unusable(at: &Reference, why: Unusable) -> Finding {
    let path = match &at.to {
        SecretRef::File(path) => path.display().to_string(),
        SecretRef::Env(name) => name.clone(),
    };
    let message = format!("`{path}`: {why}");
    Finding { at: at.clone(), severity: Severity::Error, message, help: why.help().to_owned() }
}
