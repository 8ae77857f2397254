//! Whose machine a host is, as far as its name says.
//!
//! Only names that a provider gives out itself; a company's own domain says nothing. The words are those that the price
//! book and the fleet file's table of hosted APIs know clouds by.

use super::Address;

const PROVIDERS: &[(&str, &str)] = &[
    ("openai.com", "openai"),
    ("together.xyz", "together"),
    ("fireworks.ai", "fireworks"),
    ("groq.com", "groq"),
    ("deepinfra.com", "deepinfra"),
    ("openrouter.ai", "openrouter"),
    ("mistral.ai", "mistral"),
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

/// Those that bill by the token, so that nothing is asked of them for the sake of knowing.
const BY_THE_TOKEN: usize = 7;

/// The provider whose name the host bears.
fn provider(host: &str) -> Option<(usize, &'static str)> {
    let is_of = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    PROVIDERS.iter().enumerate().find(|(_, (domain, _))| is_of(domain)).map(|(index, (_, cloud))| (index, *cloud))
}

impl Address {
    /// A name for the cloud that it stands in, to be renamed by somebody who knows.
    pub(super) fn cloud(&self) -> String {
        let host = self.host();
        if let Some((_, cloud)) = provider(host) {
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
        self.is_https() && provider(self.host()).is_some_and(|(index, _)| index < BY_THE_TOKEN)
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
