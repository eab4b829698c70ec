"""Messages, streams, errors and retries by the official SDK; prints what an application would see.

Usage: anthropic_sdk.py   (ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY say where to)
"""

import json

import anthropic

client = anthropic.Anthropic(max_retries=2, timeout=30)


def say(kind, value):
    print(kind, json.dumps(value, sort_keys=True, ensure_ascii=False))


def ask(text, of=client):
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": text}]}, of


def raw(text, of=client):
    question, of = ask(text, of)
    answer = of.messages.with_raw_response.create(**question)
    return [answer.status_code, answer.retries_taken, answer.parse().model_dump()]


say("message", raw("plain"))

with client.messages.stream(**ask("stream")[0]) as stream:
    events = [[it.type, getattr(it, "text", None)] for it in stream]
    say("stream", [events, stream.get_final_message().model_dump()])

# An error once, and then an answer: by a status that is tried again, and by the header that says so.
for text in ["overloaded once", "limited once", "conflict once"]:
    say("retried", raw(text))

for text in ["refused", "overloaded", "broken stream"]:
    try:
        with client.with_options(max_retries=0).messages.stream(**ask(text)[0]) as stream:
            say("nothing wrong", [it.type for it in stream])
    except anthropic.APIStatusError as error:
        say("error", [type(error).__name__, error.status_code, error.request_id, error.body])

try:
    raw("silence", client.with_options(max_retries=0, timeout=1.0))
except anthropic.APITimeoutError as error:
    say("time-out", type(error).__name__)

say("count", client.messages.count_tokens(model="m", messages=ask("count")[0]["messages"]).model_dump())
