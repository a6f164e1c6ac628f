"""Answers scripts/bench_engine.py with Hugging Face's transformers.

with_transformers.py GGUF f32|bf16 THREADS FOLDER: commands as in
engine/examples/measure. The GGUF's weights are unpacked once, into FOLDER.
"""

import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, StoppingCriteria

from talk import serve

path, dtype, threads, folder = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
torch.set_num_threads(threads)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load():
    if not (folder / "model.safetensors").exists():
        plain = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        plain.save_pretrained(folder)
        AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind).eval()
    # Every answer is as long as it may be.
    model.generation_config.eos_token_id = None
    return model


model = load()
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")


class Clock(StoppingCriteria):
    """Writes down when each token of the batch was there."""

    def __init__(self, begin):
        self.begin, self.times = begin, []

    def __call__(self, tokens, scores, **rest):
        self.times.append(time.perf_counter() - self.begin)
        return torch.zeros(tokens.shape[0], dtype=torch.bool)


def answer(requests):
    """All at once, as one padded batch; answers are as long as was allowed."""
    begin = time.perf_counter()
    batch = tokenizer([request["prompt"] for request in requests], return_tensors="pt", padding=True)
    clock = Clock(begin)
    with torch.inference_mode():
        model.generate(
            **batch, max_new_tokens=requests[0]["tokens"], do_sample=False, use_cache=True,
            pad_token_id=0, stopping_criteria=[clock],
        )
    lengths = batch["attention_mask"].sum(1).tolist()
    return [{"prompt_tokens": length, "sent": 0.0, "tokens": clock.times} for length in lengths]


def score(windows):
    total, count = 0.0, 0
    for piece in map(torch.tensor, windows):
        with torch.inference_mode():
            logits = model(piece[None, :-1]).logits[0].float()
        chosen = logits.log_softmax(-1).gather(1, piece[1:, None])
        total, count = total + chosen.double().sum().item(), count + chosen.numel()
    return {"tokens": count, "log_probability": total}


serve(
    f"transformers {transformers.__version__} on torch {torch.__version__.split('+')[0]}",
    {"answer": answer, "score": score},
)
