"""What random bytes begin with: seeds.py CORPUS WIRE, a folder for each target; recorded exchanges, if they are there."""

import json
import pathlib
import re
import sys

KINDS = {
    "openai_chat": 0,
    "openai_responses": 3,
    "anthropic_messages": 4,
    "gemini_generate": 5,
    "gemini_stream": 5,
}
EACH = 60
ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def escaped(match):
    return bytes.fromhex(match[1][1:].decode()) if match[1][:1] == b"x" else ESCAPES[match[1]]


def heads(golden):
    for case in re.split(rb"(?m)^\[.*\n", golden)[1:]:
        lines = (it for it in case.splitlines() if not it.startswith(b"#"))
        yield re.sub(rb"\\(x..|.)", escaped, b"".join(lines))


def keep(folder, seeds):
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number:04}").write_bytes(seed)


corpus = pathlib.Path(sys.argv[1])
keep(corpus / "configs", (it.read_bytes() for it in sorted(pathlib.Path("config").glob("*.toml"))))
keep(corpus / "heads", heads(pathlib.Path("tests/golden/hygiene/requests.txt").read_bytes()))
exchanges = []
for kind, endpoint in KINDS.items():
    file = pathlib.Path(sys.argv[2]) / f"{kind}.jsonl"
    lines = file.read_text().splitlines()[:EACH] if file.is_file() else []
    exchanges += [(bytes([endpoint]), json.loads(it)) for it in lines]
keep(corpus / "requests", (json.dumps(it["request"]).encode() + end for end, it in exchanges))
keep(corpus / "answers", (it["response_body"].encode() + end for end, it in exchanges))
