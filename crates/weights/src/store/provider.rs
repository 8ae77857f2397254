//! Which bucket a URL means, and who we are there: by the variables that the provider's own tools read, and by nothing else.
//!
//! Where both stores of a replication are of one provider and not of one account, each side has variables of its own: the
//! same names behind `FROM_` or `TO_`.
//!
//! No metadata service is asked and no file in a home directory is read: on a machine of a cloud that is not the bucket's,
//! either would find the wrong identity, or none, after a timeout. What is missing is said before anything is sent.

use std::sync::Arc;

use object_store::{
    RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::GoogleCloudStorageBuilder,
};

use super::{
    bucket::{Bucket, Parts, Provider},
    net::Client,
    s3::S3,
};
use crate::Error;

/// Of `CopyObject`; longer objects are copied in parts, which object_store does not do.
const LONGEST_S3_COPY: u64 = 5 << 30;

/// Reads a variable; one that is set to nothing is not set.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Which of two stores, where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Only,
    From,
    To,
}

impl Side {
    fn prefix(self) -> &'static str {
        match self {
            Self::Only => "",
            Self::From => "FROM_",
            Self::To => "TO_",
        }
    }
}

/// What a variable is for one side. With any of its own for a provider, nothing of the other's is used there: a key of one
/// account beside the token of another would be an identity that nobody has.
pub(super) fn of_side(side: Side, name: &str, variables: &[(String, String)]) -> Option<String> {
    let provider = name.split_once('_').map_or(name, |(provider, _)| provider);
    let has_own = has_any(side, &format!("{provider}_"), variables);
    let name = if has_own { format!("{}{name}", side.prefix()) } else { name.to_owned() };
    let found = variables.iter().find(|(known, value)| *known == name && !value.is_empty());
    found.map(|(_, value)| value.clone())
}

fn has_any(side: Side, beginning: &str, variables: &[(String, String)]) -> bool {
    let own = format!("{}{beginning}", side.prefix());
    side != Side::Only && variables.iter().any(|(name, _)| name.starts_with(&own))
}

/// What the variables of a bucket's provider begin with.
fn beginning_of(url: &str) -> Option<&'static str> {
    match url.split_once("://")?.0 {
        "s3" => Some("AWS_"),
        "gs" => Some("GOOGLE_"),
        "az" => Some("AZURE_"),
        _ => None,
    }
}

/// Whether a side has variables of its own for the provider of a URL.
pub(super) fn has_own(side: Side, url: &str, variables: &[(String, String)]) -> bool {
    beginning_of(url).is_some_and(|beginning| has_any(side, beginning, variables))
}

/// A text with the names that its variables have for one side.
pub(super) fn own_names(side: Side, url: &str, text: &str) -> String {
    let own = |beginning: &str| text.replace(beginning, &format!("{}{beginning}", side.prefix()));
    beginning_of(url).map_or(text.to_owned(), own)
}

/// An error about variables, by the names that are looked at on this side; where there are none yet, by both.
pub(super) fn by_its_names(side: Side, url: &str, error: Error, variables: &[(String, String)]) -> Error {
    let Some(beginning) = beginning_of(url).filter(|beginning| error.to_string().contains(beginning)) else {
        return error;
    };
    let Error { kind, message, help } = error;
    if has_own(side, url, variables) {
        return Error { kind, message: own_names(side, url, &message), help: own_names(side, url, &help) };
    }
    let prefix = side.prefix();
    let both =
        if prefix.is_empty() { String::new() } else { format!("; or {prefix}{beginning}… for this side alone") };
    Error { kind, message, help: help + &both }
}

/// The process's own.
pub(super) fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The bucket of `s3://`, `gs://` or `az://`; `None` when the URL is of none of them.
pub(super) fn bucket(url: &str, environment: Environment) -> Result<Option<Bucket>, Error> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let (variables, longest_copy): (&'static str, u64) = match scheme {
        "s3" => ("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", LONGEST_S3_COPY),
        "gs" => ("GOOGLE_APPLICATION_CREDENTIALS", u64::MAX),
        "az" => ("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", u64::MAX),
        _ => return Ok(None),
    };
    if name.is_empty()
        || name.contains(['@', ':', '?'])
        || prefix.split('/').any(|part| matches!(part, "." | ".."))
        || prefix.contains("//")
    {
        let help = format!("write {scheme}://BUCKET/PREFIX");
        return Err(Error::usage(format!("{} is not the address of a bucket", super::shown(url)), help));
    }
    let (provider, s3) = match scheme {
        "s3" => s3(name, environment).map(|(provider, s3)| (provider, Some(s3)))?,
        "gs" => (google(name, environment)?, None),
        _ => (azure(name, environment)?, None),
    };
    let url = url.trim_end_matches('/').to_owned();
    let (name, prefix) = (name.to_owned(), prefix.to_owned());
    Ok(Some(Bucket::new(Parts { provider, url, name, prefix, variables, longest_copy, s3 })))
}

/// Repeats are ours.
fn no_repeats() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn cannot(scheme: &str, error: &object_store::Error) -> Error {
    Error::usage(
        format!("{scheme} cannot be used: {error}"),
        "check the variables that name the endpoint and the credentials",
    )
}

/// The endpoint's own scheme decides whether anything leaves without TLS.
fn endpoint(environment: Environment, names: &[&str]) -> Result<Option<String>, Error> {
    let Some((name, url)) = names.iter().find_map(|name| Some((name, environment(name)?))) else { return Ok(None) };
    let well_formed = ["http://", "https://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
    if well_formed && url.parse::<http::Uri>().is_ok() {
        return Ok(Some(url.trim_end_matches('/').to_owned()));
    }
    Err(Error::usage(
        format!("{name}={} is not an endpoint", super::shown(&url)),
        "write https://HOST, or http:// for one without TLS",
    ))
}

fn s3(name: &str, environment: Environment) -> Result<(Arc<dyn Provider>, S3), Error> {
    let region = environment("AWS_REGION").or_else(|| environment("AWS_DEFAULT_REGION"));
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let client = Client::default();
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(name)
        .with_region(&region)
        .with_retry(no_repeats())
        .with_disable_bulk_delete(true)
        .with_allow_http(true)
        .with_http_connector(client.clone());
    let endpoint = endpoint(environment, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])?;
    let signs_payload = endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    builder = builder.with_unsigned_payload(!signs_payload);
    let host = endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let key = environment("AWS_ACCESS_KEY_ID");
    let secret = environment("AWS_SECRET_ACCESS_KEY");
    let by_token = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
        ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ];
    let by_container = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ];
    builder = match (key, secret) {
        (Some(key), Some(secret)) => {
            let builder = builder.with_access_key_id(key).with_secret_access_key(secret);
            match environment("AWS_SESSION_TOKEN") {
                Some(token) => builder.with_token(token),
                None => builder,
            }
        }
        (None, None) if by_token.iter().all(|(name, _)| environment(name).is_some()) => by_token
            .into_iter()
            .fold(builder, |builder, (name, key)| builder.with_config(key, environment(name).unwrap_or_default())),
        (None, None) if by_container.iter().any(|(name, _)| environment(name).is_some()) => {
            let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile);
            by_container.into_iter().chain([token]).fold(builder, |builder, (name, key)| match environment(name) {
                Some(value) => builder.with_config(key, value),
                None => builder,
            })
        }
        (key, secret) => {
            let missing: Vec<&str> = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)]
                .iter()
                .filter(|(_, value)| value.is_none())
                .map(|(name, _)| *name)
                .collect();
            return Err(Error::usage(
                format!("s3://{name} needs credentials: {} not set", are(&missing)),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), or \
                 AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN; a public bucket can be read by its https:// address",
            ));
        }
    };
    let store = builder.build().map_err(|e| cannot("s3://", &e))?;
    let s3 =
        S3 { url: format!("{host}/{name}"), region, credentials: store.credentials().clone(), client, signs_payload };
    Ok((Arc::new(store), s3))
}

fn google(name: &str, environment: Environment) -> Result<Arc<dyn Provider>, Error> {
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(name)
        .with_retry(no_repeats())
        .with_http_connector(Client::default());
    let builder = if let Some(path) = environment("GOOGLE_APPLICATION_CREDENTIALS") {
        builder.with_application_credentials(path)
    } else if let Some(path) = environment("GOOGLE_SERVICE_ACCOUNT") {
        builder.with_service_account_path(path)
    } else if let Some(key) = environment("GOOGLE_SERVICE_ACCOUNT_KEY") {
        builder.with_service_account_key(key)
    } else if let Some(token) = environment("GOOGLE_OAUTH_ACCESS_TOKEN") {
        builder.with_bearer_token(token)
    } else {
        return Err(Error::usage(
            format!("gs://{name} needs credentials: GOOGLE_APPLICATION_CREDENTIALS is not set"),
            "set it to the path of a credentials file (or GOOGLE_SERVICE_ACCOUNT_KEY to its text, or \
             GOOGLE_OAUTH_ACCESS_TOKEN to what `gcloud auth print-access-token` prints)",
        ));
    };
    let builder = match endpoint(environment, &["GOOGLE_STORAGE_ENDPOINT", "STORAGE_EMULATOR_HOST"])? {
        Some(url) => builder.with_base_url(&url),
        None => builder,
    };
    Ok(Arc::new(builder.build().map_err(|e| cannot("gs://", &e))?))
}

fn azure(name: &str, environment: Environment) -> Result<Arc<dyn Provider>, Error> {
    let first = |names: &[&str]| names.iter().find_map(|name| environment(name));
    let account = first(&["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]).ok_or_else(|| {
        Error::usage(
            format!("az://{name} needs an account: AZURE_STORAGE_ACCOUNT_NAME is not set"),
            "set it to the storage account's name",
        )
    })?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(name)
        .with_retry(no_repeats())
        .with_allow_http(true)
        .with_http_connector(Client::default());
    let by_client = [
        (AzureConfigKey::ClientId, "AZURE_CLIENT_ID"),
        (AzureConfigKey::AuthorityId, "AZURE_TENANT_ID"),
        (AzureConfigKey::ClientSecret, "AZURE_CLIENT_SECRET"),
        (AzureConfigKey::FederatedTokenFile, "AZURE_FEDERATED_TOKEN_FILE"),
    ];
    if let Some(key) = first(&["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"]) {
        builder = builder.with_access_key(key);
    } else if let Some(token) = environment("AZURE_STORAGE_SAS_TOKEN") {
        builder = builder.with_config(AzureConfigKey::SasKey, token);
    } else if environment("AZURE_CLIENT_ID").is_some()
        && environment("AZURE_TENANT_ID").is_some()
        && first(&["AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"]).is_some()
    {
        builder = by_client.into_iter().fold(builder, |builder, (key, name)| match environment(name) {
            Some(value) => builder.with_config(key, value),
            None => builder,
        });
    } else {
        return Err(Error::usage(
            format!("az://{name} needs credentials: AZURE_STORAGE_ACCOUNT_KEY is not set, nor AZURE_STORAGE_SAS_TOKEN"),
            "set one of them, or AZURE_CLIENT_ID and AZURE_TENANT_ID with AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE",
        ));
    }
    if let Some(url) = endpoint(environment, &["AZURE_STORAGE_ENDPOINT"])? {
        builder = builder.with_endpoint(url);
    }
    Ok(Arc::new(builder.build().map_err(|e| cannot("az://", &e))?))
}

fn are(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        names => format!("{} are", names.join(" and ")),
    }
}
