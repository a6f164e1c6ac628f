"""Measures the engine beside transformers and llama.cpp, in turns, in one run.

bench_engine.py [decode|batch|prefill|perplexity]... [f32|bf16|int8|int4]... [--rounds N]
                [--without transformers|llama]

Without names, everything. `bench_engine.py decode bf16` is the quick look: ours in
bf16 beside transformers in bf16. In a round each contestant does the same work once,
alone, while the others wait for their next line; what is printed are medians over the
rounds, and medians of the rounds' ratios.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

TREE = Path(__file__).resolve().parent.parent
MODEL = TREE / ".cache/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT = TREE / "engine/benches/text.md"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", TREE / "target"))
PEERS = TREE / "scripts/peers"
THREADS = 2
PARTS = ["decode", "batch", "prefill", "perplexity"]
DTYPES = ["f32", "bf16", "int8", "int4"]
# Whom ours is compared with: transformers in the same number format, where it has it.
LLAMA = "llama.cpp Q4_1"
TRANSFORMERS = {"f32": "transformers f32", "bf16": "transformers bf16"}
PROMPT, ANSWER, BATCH, BATCH_ANSWER, PREFILLS, WINDOW = 45, 128, 8, 64, (45, 512), 512


def skipped(what, why):
    print(f"SKIPPED {what}: {why}", file=sys.stderr, flush=True)


class Contestant:
    """A process that answers commands, one at a time."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE
        )

    def wait_until_ready(self):
        """What it calls itself, or None if it cannot."""
        said = json.loads(self.process.stdout.readline() or '{"failed": "it ended at once"}')
        if "failed" in said:
            skipped(self.name, said["failed"])
        return said.get("ready")

    def ask(self, command, argument):
        self.process.stdin.write(json.dumps({command: argument}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench: {self.name} ended in the middle of {command}")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def commands(dtypes, without):
    """How each contestant is started, by name."""
    ours = {
        f"ours {dtype}": [TARGET / "release/examples/measure", MODEL, dtype, str(THREADS)]
        for dtype in dtypes
    }
    peers = [TRANSFORMERS[dtype] for dtype in dtypes if dtype in TRANSFORMERS]
    for peer in [*peers, LLAMA]:
        package = "llama" if peer == LLAMA else "transformers"
        if package in without:
            skipped(peer, "not wanted")
            continue
        made = subprocess.run([TREE / "scripts/python", package], stdout=subprocess.PIPE, text=True)
        if made.returncode != 0:
            skipped(peer, "no Python with it, see above")
            continue
        command = [made.stdout.strip(), "-B", PEERS / f"with_{package}.py", MODEL]
        if package == "transformers":
            command.append(peer.split()[1])
        command.append(str(THREADS))
        if package == "transformers":
            command.append(TREE / ".cache/peers/plain")
        ours[peer] = command
    return ours


def start(dtypes, without):
    """Those that could be started, by name. One loads at a time."""
    ready, names = {}, set()
    for name, command in commands(dtypes, without).items():
        contestant = Contestant(name, command)
        version = contestant.wait_until_ready()
        if version:
            ready[name] = contestant
            names.add(version)
    print("versions: " + "; ".join(sorted(names)))
    print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
    return ready


def one_of_ours(contestants):
    return next(one for name, one in contestants.items() if name.startswith("ours"))


class Prompts:
    """Texts of a length in tokens that nobody has been asked yet, so that no cache helps."""

    def __init__(self, contestants):
        self.cutter = one_of_ours(contestants)
        self.text, self.at = TEXT.read_text(), 0

    def cut(self, tokens):
        # Prompts may overlap but never begin alike.
        self.at = (self.at + 37) % 3000
        return self.cutter.ask("cut", {"text": self.text, "at": self.at, "tokens": tokens})


def requests(prompts, tokens):
    return [{"prompt": prompt, "tokens": tokens} for prompt in prompts]


def rate(answers):
    """Tokens a second in all, from when each answer has begun until the first is done."""
    begin = max(answer["tokens"][0] for answer in answers)
    end = min(answer["tokens"][-1] for answer in answers)
    if end <= begin:  # Some came after others were done.
        begin, end = 0, max(answer["tokens"][-1] for answer in answers)
    drawn = sum(sum(begin < time <= end for time in answer["tokens"]) for answer in answers)
    return drawn / (end - begin)


def decode(contestants, prompts):
    prompt = prompts.cut(PROMPT)
    for name, one in contestants.items():
        yield name, rate(one.ask("answer", requests([prompt], ANSWER)))


def batch(contestants, prompts):
    many = [prompts.cut(PROMPT) for _ in range(BATCH)]
    for name, one in contestants.items():
        alone = rate(one.ask("answer", requests(many[:1], BATCH_ANSWER)))
        together = rate(one.ask("answer", requests(many[::-1], BATCH_ANSWER)))
        yield name, together
        yield f"{name} / its batch of one", together / alone


def prefill_of(tokens):
    def prefill(contestants, prompts):
        prompt = prompts.cut(tokens)
        for name, one in contestants.items():
            [answer] = one.ask("answer", requests([prompt], 1))
            yield name, answer["prompt_tokens"] / answer["tokens"][0]

    return prefill


def in_rounds(title, work, contestants, prompts, rounds):
    """Does the work so many times with everybody in turns, and prints the medians."""
    measured = {}
    for _ in range(rounds):
        for name, value in work(contestants, prompts):
            measured.setdefault(name, []).append(value)

    def beside(name, peer):
        if not name.startswith("ours") or "/" in name or peer not in measured:
            return ""
        return f"{median(mine / its for mine, its in zip(measured[name], measured[peer])):.2f}"

    print(f"\n{title}; medians of {rounds} rounds\n")
    print("| | tokens a second | least to most | / transformers | / llama.cpp |\n|---|---|---|---|---|")
    for name, values in measured.items():
        digits = 2 if "/" in name else 1
        spread = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
        ratios = f"{beside(name, TRANSFORMERS.get(name.split()[-1]))} | {beside(name, LLAMA)}"
        print(f"| {name} | {median(values):.{digits}f} | {spread} | {ratios} |", flush=True)


def perplexity(contestants):
    """Of a text of ours, in windows of WINDOW tokens."""
    tokens, base = one_of_ours(contestants).ask("encode", TEXT.read_text()), None
    windows = [tokens[at:at + WINDOW] for at in range(0, len(tokens), WINDOW)]
    print(f"\nperplexity of the {len(tokens)} tokens of {TEXT.relative_to(TREE)}, in windows of {WINDOW}\n")
    print("| | perplexity | over ours f32 |\n|---|---|---|")
    for name, one in contestants.items():
        scored = one.ask("score", windows)
        value = math.exp(-scored["log_probability"] / scored["tokens"])
        base = base or (value if name == "ours f32" else None)
        over = f"{100 * (value / base - 1):+.2f} %" if base else ""
        print(f"| {name} | {value:.3f} | {over} |", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", action="append", default=[], choices=["transformers", "llama"])
    asked = parser.parse_args()
    if unknown := set(asked.names) - {*PARTS, *DTYPES}:
        parser.error(f"there is no {' or '.join(sorted(unknown))}")
    parts = [part for part in PARTS if part in asked.names] or PARTS
    dtypes = [dtype for dtype in DTYPES if dtype in asked.names] or DTYPES
    contestants = start(dtypes, asked.without)
    if not any(name.startswith("ours") for name in contestants):
        sys.exit("bench: our engine could not be started")
    prompts = Prompts(contestants)
    warm_up = requests([prompts.cut(PROMPT)], 8)
    for one in contestants.values():
        one.ask("answer", warm_up)
    works = {
        "decode": [(f"decode, {PROMPT} tokens of prompt, {ANSWER} of answer", decode)],
        "batch": [(f"{BATCH} requests at a time, {PROMPT} tokens of prompt, {BATCH_ANSWER} of answer", batch)],
        "prefill": [
            (f"prefill, {tokens} tokens of prompt, until the first token", prefill_of(tokens))
            for tokens in PREFILLS
        ],
    }
    for part in parts:
        for title, work in works.get(part, []):
            in_rounds(title, work, contestants, prompts, asked.rounds)
    if "perplexity" in parts:
        perplexity(contestants)
    for one in contestants.values():
        one.end()


if __name__ == "__main__":
    main()
