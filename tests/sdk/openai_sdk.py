"""Chat, streaming, tools and errors by the official SDK; prints what an application would see.

Usage: openai_sdk.py QUESTIONS.json   (OPENAI_BASE_URL and OPENAI_API_KEY say where to)
"""

import json
import sys

import openai

client = openai.OpenAI(max_retries=0, timeout=30)
questions = json.load(open(sys.argv[1], encoding="utf-8"))
plain = [it for it in questions if not it.get("tools")][:3]
tools = [it for it in questions if it.get("tools")][:2]
assert plain and tools, "the rows have questions with and without tools"


def say(kind, value):
    print(kind, json.dumps(value, sort_keys=True, ensure_ascii=False))


for question in plain + tools:
    question.pop("stream", None)
    answer = client.chat.completions.create(**question)
    message = answer.choices[0].message.model_dump()
    say("chat", [message, answer.choices[0].finish_reason, answer.usage.model_dump()])

    text, calls, finish = "", {}, None
    for chunk in client.chat.completions.create(**question, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                name, arguments = calls.get(call.index, ("", ""))
                name += call.function.name or ""
                calls[call.index] = (name, arguments + (call.function.arguments or ""))
    say("stream", [text, calls, finish])

raw = client.chat.completions.with_raw_response.create(**plain[0])
say("raw", [raw.status_code, raw.headers["content-type"]])

try:
    unknown = [{"role": "user", "content": "a question that nobody has recorded"}]
    client.chat.completions.create(model=plain[0]["model"], messages=unknown)
except openai.NotFoundError as error:
    say("error", [error.status_code, error.body])

say("models", sorted(it.id for it in client.models.list()))
