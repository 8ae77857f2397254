//! The endpoints whose bodies are understood, and the dialect that each speaks.

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    /// OpenAI's newer form of a chat, which engines serve too.
    Responses,
    /// Anthropic's form of a chat, which engines serve too.
    Messages,
    /// How many tokens a request to [`Self::Messages`] would have.
    CountTokens,
    Rerank,
    Speech,
    Transcriptions,
    Translations,
    ImageGenerations,
    ImageEdits,
    ImageVariations,
}

/// How answers are written, streamed ones above all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Chunks of `choices`, ended by `[DONE]`.
    Choices,
    /// Typed events, the last of which carries the whole response.
    Responses,
    /// Typed events from `message_start` to `message_stop`.
    Messages,
    /// Anything: passed on as it comes.
    Opaque,
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    Json,
    Multipart,
}

impl Endpoint {
    pub const ALL: [Self; 13] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::Messages,
        Self::CountTokens,
        Self::Rerank,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::ImageVariations,
    ];

    /// The path below a base URL that ends in `/v1`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
            Self::Messages => "/messages",
            Self::CountTokens => "/messages/count_tokens",
            Self::Rerank => "/rerank",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::ImageGenerations => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::ImageVariations => "/images/variations",
        }
    }

    /// The endpoint of a path, with or without `/v1` before it.
    pub fn from_path(path: &str) -> Option<Self> {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    pub fn dialect(self) -> Dialect {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings => Dialect::Choices,
            Self::Responses => Dialect::Responses,
            Self::Messages => Dialect::Messages,
            _ => Dialect::Opaque,
        }
    }

    pub fn form(self) -> Form {
        match self {
            Self::Transcriptions | Self::Translations | Self::ImageEdits | Self::ImageVariations => Form::Multipart,
            _ => Form::Json,
        }
    }

    /// Whether its answers may be streamed in a dialect that says when one is whole.
    pub fn streams(self) -> bool {
        self != Self::Embeddings && self.dialect() != Dialect::Opaque
    }

    /// The member that holds what the model reads.
    pub(crate) fn prompt_key(self) -> &'static str {
        match self {
            Self::Chat | Self::Messages | Self::CountTokens => "messages",
            Self::Completions | Self::ImageGenerations | Self::ImageEdits => "prompt",
            Self::Rerank => "documents",
            _ => "input",
        }
    }

    /// The members that bound the answer, the one that wins first.
    pub(crate) fn bounds(self) -> &'static [&'static str] {
        match self {
            Self::Responses => &["max_output_tokens"],
            Self::Messages => &["max_tokens"],
            _ => &["max_completion_tokens", "max_tokens"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_its_endpoint_and_back() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_path(endpoint.path()), Some(endpoint));
            assert_eq!(Endpoint::from_path(&format!("/v1{}", endpoint.path())), Some(endpoint));
        }
        for path in ["/v1/responses/resp_1", "/v1/messages/", "/v2/rerank", "/v1/files", ""] {
            assert_eq!(Endpoint::from_path(path), None, "{path}");
        }
    }
}
