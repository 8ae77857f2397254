// Vercel's AI SDK, with its provider for compatible servers and the one for OpenAI (which speaks responses).
//
// usage: vercel_client.mjs BASE_URL KEY MODEL, with the packages in NODE_PATH's folder
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.NODE_PATH + "/");
const from = async name => import(pathToFileURL(require.resolve(name)));
const { generateText, streamText, tool, jsonSchema } = await from("ai");
const { createOpenAICompatible } = await from("@ai-sdk/openai-compatible");
const { createOpenAI } = await from("@ai-sdk/openai");
const { version } = JSON.parse(readFileSync(process.env.NODE_PATH + "/ai/package.json"));
const [baseURL, apiKey, name] = process.argv.slice(2);

const compatible = (key = apiKey, model = name) =>
  createOpenAICompatible({ name: "here", baseURL, apiKey: key, includeUsage: true }).chatModel(model);
const responses = createOpenAI({ baseURL, apiKey }).responses(name);
const fixed = { prompt: "hello", temperature: 0, seed: 7, maxOutputTokens: 12, maxRetries: 0 };
const counts = ({ inputTokens, outputTokens }) => [inputTokens, outputTokens];
const named = ({ modelId }) => modelId === name;

async function generated(model, more = {}) {
  const answer = await generateText({ model, ...fixed, ...more });
  const calls = answer.toolCalls.map(call => [call.toolName, call.input]);
  return [answer.text, calls, answer.finishReason, counts(answer.usage), named(answer.response)];
}

async function streamed(model, more = {}) {
  const answer = streamText({ model, ...fixed, ...more, onError: () => {} });
  const types = new Set();
  let failure;
  for await (const part of answer.fullStream) {
    types.add(part.type);
    if (part.type === "error") failure = part.error;
  }
  if (failure) throw failure;
  const calls = (await answer.toolCalls).map(call => [call.toolName, call.input]);
  const ended = [await answer.finishReason, counts(await answer.usage), named(await answer.response)];
  return [[...types].sort(), await answer.text, calls, ...ended];
}

const inputSchema = jsonSchema({
  type: "object",
  properties: { city: { type: "string", enum: ["Oslo", "Lima"] } },
  required: ["city"],
  additionalProperties: false,
});
const tools = { weather: tool({ description: "the weather", inputSchema }) };
const offered = { tools, toolChoice: "required", maxOutputTokens: 64 };

const calls = {
  whole: () => generated(compatible()),
  streamed: () => streamed(compatible()),
  tools: () => generated(compatible(), offered),
  "tools streamed": () => streamed(compatible(), offered),
  "tools on responses": () => streamed(responses, { ...offered, seed: undefined }),
  // At temperature 0 there is nothing to draw, and responses have no seed.
  response: () => generated(responses, { seed: undefined }),
  "response streamed": () => streamed(responses, { seed: undefined }),
  "bad key": () => generated(compatible("sk-wrong")),
  "bad key streamed": () => streamed(compatible("sk-wrong")),
  "wrong model": () => generated(compatible(apiKey, "nobody")),
};

const outcome = async call => call().catch(error => [error.name, error.statusCode ?? null]);
const outcomes = { client: `ai ${version}` };
for (const [call, run] of Object.entries(calls)) outcomes[call] = await outcome(run);
console.log(JSON.stringify(outcomes));
