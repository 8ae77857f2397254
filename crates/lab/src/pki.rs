//! Certificates for engines behind TLS: one that is right, and one for each way to be wrong.
//!
//! They are made when the lab begins, with an authority that only the lab's gateways are told to believe. Kept in the
//! repository, the right one would expire one day.

use std::sync::OnceLock;

use outrigger_fakes::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use crate::{LabError, matrix::Certificate, stage::ENGINES_NAME};

type Made<T> = Result<T, rcgen::Error>;

/// What engines can show, and the authority that vouches for most of it.
#[derive(Debug)]
pub(crate) struct Pki {
    /// In PEM.
    pub(crate) authority: String,
    good: Identity,
    expired: Identity,
    another_name: Identity,
    unknown_issuer: Identity,
}

impl Pki {
    /// The same for all cells of a run.
    pub(crate) fn shared() -> Result<&'static Self, LabError> {
        static PKI: OnceLock<Result<Pki, String>> = OnceLock::new();
        let made = PKI.get_or_init(|| Self::make().map_err(|e| e.to_string()));
        made.as_ref().map_err(|why| LabError::Certificates(why.clone()))
    }

    pub(crate) fn identity(&self, certificate: Certificate) -> Identity {
        match certificate {
            Certificate::Good => &self.good,
            Certificate::Expired => &self.expired,
            Certificate::AnotherName => &self.another_name,
            Certificate::UnknownIssuer => &self.unknown_issuer,
        }
        .clone()
    }

    fn make() -> Result<Self, Box<dyn std::error::Error>> {
        let (authority, pem) = authority("the lab")?;
        let (stranger, _) = self::authority("somebody else")?;
        let own = ["127.0.0.1", ENGINES_NAME];
        Ok(Self {
            authority: pem,
            good: issue(&authority, &own, false)?,
            expired: issue(&authority, &own, true)?,
            another_name: issue(&authority, &["another.example"], false)?,
            unknown_issuer: issue(&stranger, &own, false)?,
        })
    }
}

fn authority(name: &str) -> Made<(Issuer<'static, KeyPair>, String)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn issue(
    by: &Issuer<'static, KeyPair>,
    names: &[&str],
    is_expired: bool,
) -> Result<Identity, Box<dyn std::error::Error>> {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if is_expired {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    let key = KeyPair::generate()?;
    let chain = params.signed_by(&key, by)?.pem();
    Ok(Identity::from_pem(&chain, &key.serialize_pem())?)
}
