"""Measures how the engine serves many requests over time.

bench_serving.py [f32|bf16|int8|int4] [--rounds N]

Bare of peers: what is compared are the same requests with and without a long prompt
among them, and prompts whose beginning was seen with prompts that were not. bf16
where no number format is named.
"""

import argparse
import os
import sys
from statistics import median

from bench_engine import DTYPES, MODEL, TARGET, THREADS, Contestant, Prompts, requests

SHORT, ANSWER, LONG, SYSTEM, QUESTION = 45, 64, 2000, 1000, 20
# Sixteen requests, about as many a second as the machine can serve.
ARRIVALS, GAP_S, LONG_AT_S = 16, 0.5, 2.2
CROWDS = (1, 2, 4, 8, 16)


def percentile(values, percent):
    ranked = sorted(values)
    return ranked[min(len(ranked) * percent // 100, len(ranked) - 1)]


def first_s(answer):
    """How long its first token took."""
    return answer["tokens"][0] - answer["sent"]


def gaps(answers):
    """Seconds between the tokens of each answer."""
    return [
        later - earlier
        for answer in answers
        for earlier, later in zip(answer["tokens"], answer["tokens"][1:])
    ]


def arriving(prompts):
    """Short prompts, one after the other, each from somebody else."""
    return [
        {"prompt": prompts.cut(SHORT), "tokens": ANSWER, "at": number * GAP_S, "customer": number}
        for number in range(ARRIVALS)
    ]


def row(name, values):
    parts = [median(values), percentile(values, 99), max(values)]
    print(f"| {name} | " + " | ".join(f"{1000 * part:.0f}" for part in parts) + " |", flush=True)


def mixed(one, prompts, rounds):
    """Short requests over time, without and with a long prompt among them."""
    measured = {"without": ([], []), "with": ([], [])}
    long_alone, long_beside = [], []
    for _ in range(rounds):
        [alone] = one.ask("answer", requests([prompts.cut(LONG)], 1))
        long_alone.append(first_s(alone))
        for case, (firsts, between) in measured.items():
            asked = arriving(prompts)
            if case == "with":
                asked.append({"prompt": prompts.cut(LONG), "tokens": 1, "at": LONG_AT_S, "customer": ARRIVALS})
            answers = one.ask("answer", asked)
            firsts += [first_s(answer) for answer in answers[:ARRIVALS]]
            between += gaps(answers[:ARRIVALS])
            long_beside += [first_s(answer) for answer in answers[ARRIVALS:]]
    print(
        f"\n{ARRIVALS} requests, one every {GAP_S} s, {SHORT} tokens of prompt, {ANSWER} of answer; "
        f"{rounds} rounds\n\n| ms | median | 99th percentile | worst |\n|---|---|---|---|"
    )
    for case, (firsts, between) in measured.items():
        row(f"first token, {case} a prompt of {LONG} among them", firsts)
        row(f"between tokens, {case} it", between)
    row(f"first token of the {LONG} tokens, alone", long_alone)
    row(f"first token of the {LONG} tokens, among the others", long_beside)


def shared(one, prompts, rounds):
    """Questions under a system prompt that is new, and again under the same."""
    cold, warm = [], []
    for _ in range(rounds):
        system = prompts.cut(SYSTEM)
        for times in (cold, warm):
            [answer] = one.ask("answer", requests([system + prompts.cut(QUESTION)], 1))
            times.append(first_s(answer))
    ratio = median(new / seen for new, seen in zip(cold, warm))
    print(
        f"\na system prompt of {SYSTEM} tokens and a question of {QUESTION}; {rounds} rounds\n\n"
        "| ms | median | 99th percentile | worst |\n|---|---|---|---|"
    )
    row("first token, system prompt not seen before", cold)
    row("first token, system prompt seen before", warm)
    print(f"\n{ratio:.1f} times as fast (median of the rounds)", flush=True)


def rate_over_all(answers):
    """Tokens a second from the first of all to the last: some may have waited for a place."""
    times = sorted(time for answer in answers for time in answer["tokens"])
    return (len(times) - 1) / (times[-1] - times[0])


def crowds(one, prompts, rounds):
    """Tokens a second in all, by how many requests there are at a time."""
    measured = {crowd: [] for crowd in CROWDS}
    for _ in range(rounds):
        for crowd, rates in measured.items():
            many = [prompts.cut(SHORT) for _ in range(crowd)]
            rates.append(rate_over_all(one.ask("answer", requests(many, ANSWER))))
    alone = median(measured[1])
    print(
        f"\nrequests at a time, {SHORT} tokens of prompt, {ANSWER} of answer; {rounds} rounds\n\n"
        "| at a time | tokens a second in all | times one |\n|---|---|---|"
    )
    for crowd, rates in measured.items():
        print(f"| {crowd} | {median(rates):.1f} | {median(rates) / alone:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("dtype", nargs="?", choices=DTYPES, default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    ours = Contestant("ours", [TARGET / "release/examples/measure", MODEL, asked.dtype, str(THREADS)])
    version = ours.wait_until_ready()
    if not version:
        sys.exit("bench: our engine could not be started")
    print(f"{version} in {asked.dtype}; load of the machine: {os.getloadavg()[0]:.1f}")
    prompts = Prompts({"ours": ours})
    ours.ask("answer", requests([prompts.cut(SHORT)], 8))
    crowds(ours, prompts, asked.rounds)
    mixed(ours, prompts, asked.rounds)
    shared(ours, prompts, asked.rounds)
    ours.end()


if __name__ == "__main__":
    main()
