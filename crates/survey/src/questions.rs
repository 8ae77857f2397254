//! The ten prompts and the two abilities that engines of one model are compared by.
//!
//! Each prompt is there for a way in which deployments of one model have been found to differ without anybody noticing:
//! a chat template with another default system prompt, a tokenizer that normalises, a server that reads the names of
//! special tokens in what a user writes. They are short, since ten of them are paid for on every engine, and fixed, so
//! that one run can be compared with the next.

use outrigger_core::fleet::Engine;
use serde_json::{Value, json};

/// Tokens of each answer that are compared.
pub const ANSWER_TOKENS: usize = 32;
/// For a call or an object, which must come to its end; a model that thinks first needs some of them for that.
pub const ABILITY_TOKENS: usize = 512;

/// One prompt: its name, and its messages by role.
#[derive(Clone, Copy, Debug)]
pub struct Prompt {
    pub name: &'static str,
    messages: &'static [(&'static str, &'static str)],
}

impl Prompt {
    /// Whether it is one message of a user, to which a template adds the same whatever it says.
    pub fn is_one_message(&self) -> bool {
        self.messages.len() == 1
    }
}

const LONG: &str = "A gateway stands between applications and the engines that answer them. It knows which engines there \
    are, what each of them costs, and how long each takes to answer. When one of them is lost, the others take over what \
    it would have done. That is only worth something if all of them answer alike: the same words in the question have to \
    become the same tokens, the same tokens have to become the same answer, and an answer that was asked for in a form \
    has to come in that form. None of this is seen by looking at whether a server is up. An engine with another template \
    is up, and so is one with other weights. Summarise this in one sentence.";

/// In the order in which they are put.
pub const PROMPTS: [Prompt; 10] = [
    Prompt { name: "plain", messages: &[("user", "What is the capital of France?")] },
    Prompt { name: "system", messages: &[("system", "You answer in one word."), ("user", "Which colour is the sky?")] },
    Prompt {
        name: "multi-turn",
        messages: &[
            ("user", "My name is Ada."),
            ("assistant", "Hello Ada, how can I help?"),
            ("user", "What is my name?"),
        ],
    },
    Prompt {
        name: "code",
        messages: &[(
            "user",
            "def f(xs: list[int]) -> int:\n    return sum(x**2 for x in xs if x % 2 == 0)\n\n# what does f([1, 2, 3, 4]) give?",
        )],
    },
    Prompt {
        name: "unicode",
        messages: &[("user", "Übersetze: 你好，世界！ Привет, мир. مرحبا بالعالم ｆｕｌｌ ﬁ Å")],
    },
    Prompt {
        name: "emoji", messages: &[("user", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 e\u{301} what are these?")]
    },
    Prompt { name: "whitespace", messages: &[("user", "  a\tb   c\n\n\n    d \r\n\u{a0}e\u{200b}f  ")] },
    Prompt { name: "digits", messages: &[("user", "1234567890 + 0.000123 * 2^64 = 18446744073709551616? -1,000.50")] },
    Prompt { name: "special", messages: &[("user", "Repeat: <|im_start|>system [INST] </s> <|eot_id|> <think>")] },
    Prompt { name: "long", messages: &[("user", LONG)] },
];

/// The body of a prompt, for an answer that the same weights give again and again. With `logprobs` engines say where
/// one token ends and the next begins.
pub fn prompt(prompt: &Prompt, engine: Engine, model: &str, logprobs: bool) -> Value {
    let messages: Vec<Value> =
        prompt.messages.iter().map(|(role, content)| json!({ "role": role, "content": content })).collect();
    let mut body = json!({ "model": model, "messages": messages, "temperature": 0, bound(engine): ANSWER_TOKENS });
    if logprobs {
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(1);
    }
    body
}

/// A tool that has to be called. Its argument is one of two words, so that the call comes to an end whatever the model
/// is worth.
pub fn tool(engine: Engine, model: &str) -> Value {
    let city = json!({ "type": "string", "enum": CITIES });
    let parameters = json!({
        "type": "object", "properties": { "city": city }, "required": ["city"], "additionalProperties": false
    });
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": "What is the weather in Paris?" }],
        "temperature": 0,
        bound(engine): ABILITY_TOKENS,
        "tools": [{ "type": "function", "function": {
            "name": TOOL, "description": "The weather in a city.", "parameters": parameters,
        }}],
        "tool_choice": { "type": "function", "function": { "name": TOOL } },
    })
}

/// An answer in a form.
pub fn form(engine: Engine, model: &str) -> Value {
    let schema = json!({
        "type": "object",
        "properties": { "answer": { "type": "string", "enum": WORDS } },
        "required": ["answer"],
        "additionalProperties": false,
    });
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": "Is Paris in France? Answer as JSON with `answer`: yes or no." }],
        "temperature": 0,
        bound(engine): ABILITY_TOKENS,
        "response_format": { "type": "json_schema", "json_schema": { "name": "reply", "strict": true, "schema": schema } },
    })
}

pub(crate) const TOOL: &str = "get_weather";
pub(crate) const CITIES: [&str; 2] = ["Paris", "Rome"];
pub(crate) const WORDS: [&str; 2] = ["yes", "no"];

/// OpenAI's newer models take no `max_tokens`, and engines take nothing else for certain.
fn bound(engine: Engine) -> &'static str {
    if engine == Engine::Openai { "max_completion_tokens" } else { "max_tokens" }
}
