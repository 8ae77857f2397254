// What openai's client for Node makes of a server: each call's outcome, as one line of JSON.
//
// usage: openai_client.mjs BASE_URL KEY MODEL, with the package in NODE_PATH's folder
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_PATH + "/");
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));
const { VERSION } = await import(pathToFileURL(require.resolve("openai/version")));
const [baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30_000 });
const messages = [{ role: "user", content: "hello" }];
// A random model's text is the same for the same seed; without an end token it is as long as it may be.
const fixed = { seed: 7, temperature: 0, max_tokens: 12, ignore_eos: true };
const tool = { type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } };

const chat = (more = {}) => client.chat.completions.create({ model, messages, ...fixed, ...more });

async function whole() {
  const answer = await chat();
  return [answer.choices[0].message.content, answer.choices[0].finish_reason, answer.model === model];
}

async function streamed(more = {}) {
  let text = "";
  const finishes = [], usage = [];
  let named = true;
  for await (const chunk of await chat({ stream: true, ...more })) {
    text += chunk.choices[0]?.delta?.content ?? "";
    if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
    if (chunk.usage && chunk.choices.length === 0) usage.push(chunk.usage.completion_tokens);
    named &&= chunk.model === model;
  }
  return [text, finishes, usage, named];
}

async function hungUp() {
  const stream = await chat({ stream: true, max_tokens: 2000 });
  for await (const _ of stream) break;
  stream.controller.abort();
  return whole();
}

async function response() {
  const answer = await client.responses.create({ model, input: "hello", max_output_tokens: 6 });
  return [answer.status, answer.model === model];
}

async function responseStreamed() {
  const types = new Set();
  let last;
  for await (const event of await client.responses.create({ model, input: "hello", max_output_tokens: 6, stream: true })) {
    types.add(event.type);
    last = event;
  }
  return [[...types].sort(), last.response.model === model];
}

const calls = {
  whole,
  streamed,
  "streamed with usage": () => streamed({ stream_options: { include_usage: true } }),
  "streaming helper": async () =>
    (await client.chat.completions.stream({ model, messages, ...fixed }).finalChatCompletion()).choices[0].finish_reason,
  "hung up": hungUp,
  completion: async () => (await client.completions.create({ model, prompt: "hello", ...fixed })).choices[0].text,
  tools: async () => (await chat({ tools: [tool] })).object,
  response,
  "response streamed": responseStreamed,
  embeddings: async () => (await client.embeddings.create({ model, input: "hello" })).data.length,
  "a wrong type": async () => (await chat({ messages: "hello" })).object,
};

async function outcome(call, again = true) {
  try {
    return await call();
  } catch (error) {
    // llama-server closes connections when it likes, which who asks it directly meets now and then.
    if (error.constructor.name === "APIConnectionError" && again) return outcome(call, false);
    return [error.constructor.name, error.status ?? null];
  }
}

const outcomes = { client: VERSION };
for (const [name, call] of Object.entries(calls)) outcomes[name] = await outcome(call);
console.log(JSON.stringify(outcomes));
