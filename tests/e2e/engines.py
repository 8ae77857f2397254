"""Three real llama-servers behind `outrigger serve`, driven by OpenAI's own client.

Simulated engines share our idea of what an engine does; these do not. Each call is made directly and through the
gateway, and the outcomes are compared class by class. llama-server has three habits that are useful here: it ignores
the request's `model`, it closes a connection after 100 requests or 5 idle seconds, and it knows no `GET /v1/models/ID`.

Run by ./test with OUTRIGGER_BIN set; the last line is `N passed, N failed`.
"""

import json
import threading
import time

import httpx2
import openai

from rig import Engine, Gateway, run_all

MESSAGES = [{"role": "user", "content": "hello"}]
# A random model must not end a stream early, so that every stream has content to lose.
LONG = {"ignore_eos": True}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def client_of(gateway, **more):
    more.setdefault("api_key", gateway.key)
    return openai.OpenAI(base_url=gateway.url, max_retries=0, timeout=30, **more)


engines = [Engine("tiny"), Engine("tiny"), Engine("tiny")]
for engine in engines:
    engine.wait()
gateway = Gateway(engines, ["tiny"] * 3)
through = client_of(gateway)
direct = openai.OpenAI(base_url=engines[0].url, api_key="none", max_retries=0, timeout=30)


def outcome(call, client):
    """The class of what came back: the type of the answer, or the error's class and status."""
    try:
        answer = call(client)
    except openai.APIStatusError as error:
        assert error.body is None or isinstance(error.body, dict), error.body
        return (type(error).__name__, error.status_code)
    except openai.APIError as error:
        return (type(error).__name__,)
    return (type(answer).__name__,)


def same(call):
    """Directly and through the gateway."""
    one, other = outcome(call, direct), outcome(call, through)
    assert one == other, f"direct {one}, through the gateway {other}"
    return other


def name_for(client):
    return "pub" if client is not direct else "tiny"


def chat(client, **more):
    more = {"max_tokens": 8, "messages": MESSAGES, **more}
    return client.chat.completions.create(model=name_for(client), **more)


# ---- the tests, in the order in which they run


def chat_answers():
    answer = chat(through)
    assert answer.model == "pub" and answer.usage.completion_tokens > 0, answer
    assert answer.choices[0].finish_reason in ("stop", "length"), answer
    assert same(chat) == ("ChatCompletion",)


def the_same_seed_gives_the_same_text_either_way():
    def text(client):
        return chat(client, seed=7, temperature=0, max_tokens=16).choices[0].message.content

    assert text(direct) == text(through)


def streams_have_the_same_shape():
    def shape(client, **more):
        chunks = list(chat(client, stream=True, max_tokens=12, extra_body=LONG, **more))
        content = sum(1 for c in chunks if c.choices and c.choices[0].delta.content)
        finishes = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        usage = [c.usage.completion_tokens for c in chunks if c.usage and not c.choices]
        return content > 0, finishes, usage, {c.model for c in chunks} - {"tiny", "pub"}

    assert shape(through) == shape(direct) == (True, ["length"], [], set())
    asked = {"stream_options": {"include_usage": True}}
    assert shape(through, **asked) == shape(direct, **asked) == (True, ["length"], [12], set())
    assert {c.model for c in chat(through, stream=True)} == {"pub"}


def responses_are_streamed_and_whole_as_they_come():
    def shape(client):
        events = list(client.responses.create(model=name_for(client), input="hello", stream=True, max_output_tokens=6))
        last = events[-1].response
        assert last.model == name_for(client), last
        return {e.type for e in events}, last.status, last.usage.output_tokens

    assert shape(through) == shape(direct)
    assert same(lambda c: c.responses.create(model=name_for(c), input="hello", max_output_tokens=4)) == ("Response",)
    # Three engines keep three different histories.
    stored = {"input": "and?", "previous_response_id": "resp_1"}
    assert outcome(lambda c: c.responses.create(model="pub", **stored), through) == ("BadRequestError", 400)


def messages_are_streamed_and_counted_as_they_come():
    def post(url, model, key, path="/messages", **more):
        body = {"model": model, "max_tokens": 5, "messages": MESSAGES, **more}
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return httpx2.post(url + path, json=body, headers=headers, timeout=30)

    def types(answer, model):
        assert answer.status_code == 200 and f'"model":"{model}"' in answer.text, answer.text
        return [line for line in answer.text.splitlines() if line.startswith("event: ")]

    one, other = post(engines[0].url, "tiny", "none", stream=True), post(gateway.url, "pub", gateway.key, stream=True)
    assert set(types(one, "tiny")) == set(types(other, "pub")) and "event: message_stop" in other.text
    count = [post(url, m, k, "/messages/count_tokens").json() for url, m, k in
             [(engines[0].url, "tiny", "none"), (gateway.url, "pub", gateway.key)]]
    assert count[0] == count[1], count
    refused = post(gateway.url, "pub", "sk-wrong")
    assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key", refused.text
    line = next(line for line in reversed(gateway.log) if line.get("output_tokens"))
    assert line["tokens_source"] == "engine", line


def tools_and_images_and_unknown_fields_are_the_engines_business():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    same(lambda c: chat(c, tools=[tool]))
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    content = [{"type": "text", "text": "what is this?"}, image]
    same(lambda c: chat(c, messages=[{"role": "user", "content": content}]))
    assert same(lambda c: chat(c, extra_body={"top_k": 3, "x_unknown": {"a": [1]}})) == ("ChatCompletion",)
    same(lambda c: chat(c, response_format={"type": "json_object"}))
    same(lambda c: chat(c, logprobs=True, top_logprobs=2))
    same(lambda c: chat(c, n=2))
    same(lambda c: chat(c, max_tokens=-1, stop=["a"]))


def completions_and_embeddings():
    completion = same(lambda c: c.completions.create(model=name_for(c), prompt="hello", max_tokens=4))
    assert completion == ("Completion",)
    parts = list(through.completions.create(model="pub", prompt="hello", max_tokens=4, stream=True))
    assert parts and {p.model for p in parts} == {"pub"}
    # These servers were started without --embeddings. That is the request's fault and must not take them from others.
    for _ in range(6):
        same(lambda c: c.embeddings.create(model=name_for(c), input="hello"))
    assert chat(through).model == "pub", "and chat goes on"


def what_is_wrong_is_told_alike():
    assert same(lambda c: chat(c, messages="hello")) == ("BadRequestError", 400)
    same(lambda c: chat(c, messages=[{"role": "user", "content": "word " * 20_000}]))
    same(lambda c: chat(c, messages=[]))
    same(lambda c: chat(c, temperature="hot"))
    same(lambda c: chat(c, stream=True, messages="hello"))


def the_gateways_own_errors_are_openais_classes():
    unknown = outcome(lambda c: c.chat.completions.create(model="pubb", messages=MESSAGES), through)
    assert unknown == ("NotFoundError", 404), unknown
    wrong = outcome(lambda c: chat(c), client_of(gateway, api_key="sk-wrong"))
    assert wrong == ("AuthenticationError", 401), wrong
    unknown = outcome(lambda c: c.models.retrieve("nothing"), through)
    assert unknown == ("NotFoundError", 404), unknown


def models_are_listed_and_retrieved():
    assert [m.id for m in through.models.list()] == ["pub"]
    assert through.models.retrieve("pub").id == "pub"


def connections_that_the_engine_closes_cost_nothing():
    # One after the other on one kept connection to the gateway, 200 for each engine's limit of 100.
    kept = client_of(gateway, http_client=httpx2.Client(limits=httpx2.Limits(max_connections=1)))
    failed = sum(outcome(lambda c: chat(c, max_tokens=1), kept) != ("ChatCompletion",) for _ in range(600))
    assert failed == 0, f"{failed} of 600"
    time.sleep(6)
    assert chat(kept).model == "pub", "after the engines' five idle seconds"
    lines = [line for line in gateway.log if line["outcome"] != "ok" and line["status"] == 200]
    assert not lines, lines


def an_engine_that_serves_another_model_is_never_used():
    other = Engine("another").wait()
    mixed = Gateway([other, engines[0]], ["tiny", "tiny"])
    try:
        client = client_of(mixed, )
        for i in range(40):
            response = client.chat.completions.with_raw_response.create(
                model="pub", messages=MESSAGES, max_tokens=2, stream=i % 2 == 1
            )
            assert response.headers["x-outrigger-backend"] == "b1", response.headers
            response.parse()
        seen = mixed.state()["b0"]
        assert (seen["state"], seen["why"]) == ("down", "wrong_model"), seen
    finally:
        mixed.stop()
        other.kill()


def an_engine_killed_under_load_costs_only_streams_that_had_begun():
    until = time.monotonic() + 10
    counts, lock = {}, threading.Lock()

    def note(what):
        with lock:
            counts[what] = counts.get(what, 0) + 1

    def stream(client):
        content = 0
        try:
            finished = None
            for chunk in chat(client, stream=True, max_tokens=40, extra_body=LONG):
                if chunk.choices:
                    content += bool(chunk.choices[0].delta.content)
                    finished = chunk.choices[0].finish_reason or finished
            note("stream ok" if finished else "stream ended without a finish")
        except openai.APIError as error:
            note("stream cut" if content and type(error) is openai.APIError else f"stream failed: {error!r} after {content}")

    def whole(client):
        got = outcome(lambda c: chat(c, max_tokens=20, extra_body=LONG), client)
        note("whole ok" if got == ("ChatCompletion",) else f"whole failed: {got}")

    def work(number):
        client, turn = client_of(gateway), number
        while time.monotonic() < until:
            try:
                (stream if turn % 2 else whole)(client)
            except Exception as error:  # anything else is a failure of this test
                note(f"unexpected: {error!r}")
            turn += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    engines[2].kill()
    for thread in threads:
        thread.join()
    print("  ", dict(sorted(counts.items())))
    bad = {what: n for what, n in counts.items() if what not in ("stream ok", "stream cut", "whole ok")}
    assert not bad, bad
    assert counts.get("whole ok", 0) > 50 and counts.get("stream ok", 0) > 50, counts
    assert counts.get("stream cut", 0) <= 20, "at most those that were on it"
    assert gateway.state()["b2"]["state"] == "down"


def the_log_has_a_line_for_each_and_the_process_ends_well():
    code, said = gateway.stop()
    assert code == 0 and "panicked" not in said, said
    assert all(line["event"] == "request" and line["attempts"] is not None for line in gateway.log)
    assert gateway.key not in json.dumps(gateway.log) and gateway.key not in said


TESTS = [
    chat_answers,
    the_same_seed_gives_the_same_text_either_way,
    streams_have_the_same_shape,
    responses_are_streamed_and_whole_as_they_come,
    messages_are_streamed_and_counted_as_they_come,
    tools_and_images_and_unknown_fields_are_the_engines_business,
    completions_and_embeddings,
    what_is_wrong_is_told_alike,
    the_gateways_own_errors_are_openais_classes,
    models_are_listed_and_retrieved,
    connections_that_the_engine_closes_cost_nothing,
    an_engine_that_serves_another_model_is_never_used,
    an_engine_killed_under_load_costs_only_streams_that_had_begun,
    the_log_has_a_line_for_each_and_the_process_ends_well,
]


run_all(TESTS)
