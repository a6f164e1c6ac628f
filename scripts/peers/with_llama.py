"""Answers scripts/bench_engine.py with llama.cpp, on the GGUF as it is.

with_llama.py GGUF THREADS: commands as in engine/examples/measure. Straight on
llama.cpp's own interface, which its Python package passes on: what that package
adds to each token is not llama.cpp's.
"""

import ctypes
import sys
import time

import llama_cpp
import numpy

from talk import serve

path, threads = sys.argv[1], int(sys.argv[2])
SEQUENCES, CONTEXT, BATCH = 8, 1024, 512

llama_cpp.llama_backend_init()
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
vocabulary = llama_cpp.llama_model_get_vocab(model)
vocabulary_size = llama_cpp.llama_vocab_n_tokens(vocabulary)


def context(sequences):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_seq_max = sequences * CONTEXT, sequences
    params.n_batch = params.n_ubatch = BATCH
    params.n_threads = params.n_threads_batch = threads
    return llama_cpp.llama_init_from_model(model, params)


contexts = {sequences: context(sequences) for sequences in (1, SEQUENCES)}


def tokenize(text):
    data = text.encode()
    tokens = (llama_cpp.llama_token * (len(data) + 8))()
    count = llama_cpp.llama_tokenize(vocabulary, data, len(data), tokens, len(tokens), True, True)
    return list(tokens[:count])


class Batch:
    """Tokens for one step: (token, position, sequence, whether its logits are wanted)."""

    def __init__(self):
        self.raw = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def run(self, context, rows):
        """The logits of the rows that want them, in order."""
        for number, (token, position, sequence, wanted) in enumerate(rows):
            self.raw.token[number], self.raw.pos[number] = token, position
            self.raw.n_seq_id[number], self.raw.seq_id[number][0] = 1, sequence
            self.raw.logits[number] = wanted
        self.raw.n_tokens = len(rows)
        if llama_cpp.llama_decode(context, self.raw) != 0:
            sys.exit("llama.cpp could not compute a batch")
        wanted = [number for number, row in enumerate(rows) if row[3]]
        return [self.logits(context, number) for number in wanted]

    @staticmethod
    def logits(context, number):
        values = llama_cpp.llama_get_logits_ith(context, number)
        return numpy.ctypeslib.as_array(values, shape=(vocabulary_size,))


batch = Batch()


def fresh(count):
    """The context for so many sequences, empty."""
    chosen = contexts[1 if count == 1 else SEQUENCES]
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(chosen), True)
    return chosen


def in_pieces(rows):
    return [rows[at:at + BATCH] for at in range(0, len(rows), BATCH)]


def answer(requests):
    """All at once, greedy; answers are as long as was allowed."""
    begin = time.perf_counter()
    here = fresh(len(requests))
    prompts = [tokenize(request["prompt"]) for request in requests]
    rows = [
        (token, position, sequence, position == len(prompt) - 1)
        for sequence, prompt in enumerate(prompts)
        for position, token in enumerate(prompt)
    ]
    times, lengths = [], [len(prompt) for prompt in prompts]
    drawn = [int(logits.argmax()) for piece in in_pieces(rows) for logits in batch.run(here, piece)]
    times.append(time.perf_counter() - begin)
    while len(times) < requests[0]["tokens"]:
        rows = [(token, lengths[sequence], sequence, True) for sequence, token in enumerate(drawn)]
        drawn = [int(logits.argmax()) for logits in batch.run(here, rows)]
        lengths = [length + 1 for length in lengths]
        times.append(time.perf_counter() - begin)
    return [{"prompt_tokens": len(prompt), "sent": 0.0, "tokens": times} for prompt in prompts]


def score(windows):
    total, count = 0.0, 0
    for piece in windows:
        rows = [(token, position, 0, True) for position, token in enumerate(piece[:-1])]
        for logits, token in zip(batch.run(fresh(1), rows), piece[1:]):
            logits = logits.astype(numpy.float64)
            greatest = logits.max()
            total += logits[token] - greatest - numpy.log(numpy.exp(logits - greatest).sum())
            count += 1
    return {"tokens": count, "log_probability": float(total)}


serve(
    f"llama.cpp (llama-cpp-python {llama_cpp.__version__})",
    {"answer": answer, "score": score},
)
