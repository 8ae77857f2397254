//! Whose machine a host is, as far as its name says.
//!
//! Only names that a provider gives out itself; a company's own domain says nothing. The words are those that the price
//! book and the fleet file's table of hosted APIs know clouds by.

use super::Address;

/// Those that bill by the token, so that nothing is asked of them for the sake of knowing.
const HOSTED: &[(&str, &str)] = &[
    ("openai.com", "openai"),
    ("together.xyz", "together"),
    ("fireworks.ai", "fireworks"),
    ("groq.com", "groq"),
    ("deepinfra.com", "deepinfra"),
    ("openrouter.ai", "openrouter"),
    ("mistral.ai", "mistral"),
];

const RENTED: &[(&str, &str)] = &[
    ("amazonaws.com", "aws"),
    ("azure.com", "azure"),
    ("googleapis.com", "gcp"),
    ("run.app", "gcp"),
    ("oraclecloud.com", "oci"),
    ("coreweave.com", "coreweave"),
    ("coreweave.cloud", "coreweave"),
    ("lambda.ai", "lambda"),
    ("lambdalabs.com", "lambda"),
    ("runpod.net", "runpod"),
    ("runpod.ai", "runpod"),
    ("nebius.com", "nebius"),
    ("nebius.cloud", "nebius"),
    ("hyperstack.cloud", "hyperstack"),
    ("modal.run", "modal"),
];

/// The provider of the table whose name the host bears.
fn provider(table: &[(&str, &'static str)], host: &str) -> Option<&'static str> {
    let is_of = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    table.iter().find(|(domain, _)| is_of(domain)).map(|(_, cloud)| *cloud)
}

impl Address {
    /// A name for the cloud that it stands in, to be renamed by somebody who knows.
    pub(super) fn cloud(&self) -> String {
        let host = self.host();
        if let Some(cloud) = provider(HOSTED, host).or_else(|| provider(RENTED, host)) {
            return cloud.to_owned();
        }
        if host == "localhost" || host == "::1" || host.starts_with("127.") {
            return "local".to_owned();
        }
        // A number by itself, or with dots, is no name to people.
        let is_number = host.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ':'));
        if is_number { format!("host-{}", host.replace(['.', ':'], "-")) } else { host.to_owned() }
    }

    /// Whether somebody's API is there, billed by the token.
    pub fn is_hosted(&self) -> bool {
        self.is_https() && provider(HOSTED, self.host()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_has_the_name_of_its_provider_or_of_its_host() {
        for (url, cloud) in [
            ("https://api.openai.com/v1", "openai"),
            ("https://abc-8000.proxy.runpod.net", "runpod"),
            ("http://ec2-1-2-3-4.compute-1.amazonaws.com:8000", "aws"),
            ("https://notopenai.com", "notopenai.com"),
            ("http://gpu-7.example:8000", "gpu-7.example"),
            ("http://10.0.0.7:8000", "host-10-0-0-7"),
            ("http://[fd00::7]:8000", "host-fd00--7"),
            ("http://[::1]:8000", "local"),
            ("http://127.0.0.1:8000", "local"),
            ("http://localhost:8000", "local"),
        ] {
            assert_eq!(Address::parse(url).unwrap().cloud(), cloud, "{url}");
        }
    }

    #[test]
    fn hosted_apis_are_known_from_rented_machines() {
        let is_hosted = |url: &str| Address::parse(url).unwrap().is_hosted();
        assert!(is_hosted("https://api.mistral.ai/v1") && is_hosted("https://api.openai.com"));
        assert!(!is_hosted("https://abc.proxy.runpod.net") && !is_hosted("http://10.0.0.7:8000"));
    }
}
