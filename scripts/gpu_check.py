"""Checks and measures the engine on a GPU; scripts/gpu_check --help tells more."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

TREE = Path(__file__).resolve().parent.parent
PACKED = TREE / "target/gpu_check"
# The engine is for this libtorch alone.
VERSION = "2.11.0"
# Shapes of well-known models: vocabulary, width, layers, heads, key heads, head width,
# feed-forward, and whether embeddings are used once more at the end.
SIZES = {
    "1b": (128256, 2048, 16, 32, 8, 64, 8192, True),
    "8b": (128256, 4096, 32, 32, 8, 128, 14336, False),
    "tiny": (1024, 128, 2, 4, 2, 32, 256, True),
}
BATCHES = (1, 8, 32)
# How many tokens are compared: with random weights, logits are close to each other, and
# one token that differs changes all that follow.
COMPARED = 16


def skipped(what, why):
    print(f"SKIPPED {what}: {why}", file=sys.stderr, flush=True)


def config(size):
    vocabulary, width, layers, heads, key_heads, head_width, inner, tied = SIZES[size]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary,
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "head_dim": head_width, "intermediate_size": inner,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "max_position_embeddings": 4096, "tie_word_embeddings": tied, "attention_bias": False,
        "mlp_bias": False, "torch_dtype": "bfloat16",
    }


def shapes(size):
    """The tensors of a model, by name."""
    vocabulary, width, layers, heads, key_heads, head_width, inner, tied = SIZES[size]
    yield "model.embed_tokens.weight", (vocabulary, width)
    for layer in range(layers):
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", (width,)
        yield name + "self_attn.q_proj.weight", (heads * head_width, width)
        yield name + "self_attn.k_proj.weight", (key_heads * head_width, width)
        yield name + "self_attn.v_proj.weight", (key_heads * head_width, width)
        yield name + "self_attn.o_proj.weight", (width, heads * head_width)
        yield name + "post_attention_layernorm.weight", (width,)
        yield name + "mlp.gate_proj.weight", (inner, width)
        yield name + "mlp.up_proj.weight", (inner, width)
        yield name + "mlp.down_proj.weight", (width, inner)
    yield "model.norm.weight", (width,)
    if not tied:
        yield "lm_head.weight", (vocabulary, width)


def weight(number, shape, device):
    """Random, spread so that what goes in comes out at about the same size."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    generator = torch.Generator(device).manual_seed(number)
    return (torch.randn(shape, device=device, generator=generator) / shape[1] ** 0.5).bfloat16().cpu()


def write_weights(path, size, device):
    """A safetensors file: the length of a header, the header, the numbers."""
    header, end = {}, 0
    for name, shape in shapes(size):
        begin, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, (_, shape) in enumerate(shapes(size)):
            file.write(weight(number, shape, device).view(torch.int16).numpy().tobytes())
    return end


def tokenizer(vocabulary):
    """A letter a token for what is asked, and a made-up word for every other."""
    # How byte-level tokenizers write bytes that cannot be seen.
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in seen}
    unseen = [byte for byte in range(256) if byte not in letters]
    letters.update({byte: chr(256 + number) for number, byte in enumerate(unseen)})
    tokens = {letters[byte]: byte for byte in range(256)}
    tokens.update({f"word{number}": number for number in range(256, vocabulary)})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": False, "vocab": tokens, "merges": [],
        },
    }


def make_model(folder, size, device):
    """Writes a model into a folder; gives its weights' size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(size)))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(SIZES[size][0])))
    path = folder / "model.safetensors"
    if not path.exists():
        write_weights(path.with_suffix(".new"), size, device)
        path.with_suffix(".new").rename(path)
    return path.stat().st_size


def prompts(count):
    """Texts that begin differently, so that no cache helps."""
    return [f"{number} bottles of {'beer and wine ' * (2 + number % 3)}" for number in range(count)]


class Ours:
    """The engine, in a process of its own."""

    def __init__(self, folder, dtype, device, graphs):
        packed = PACKED / "measure"
        program = packed if packed.exists() else TREE / "target/release/examples/measure"
        root = Path(torch.__path__[0])
        environment = {
            **os.environ,
            "LIBTORCH": str(root),
            "LD_LIBRARY_PATH": f"{root / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "INFERNET_CUDA_GRAPHS": "1" if graphs else "0",
        }
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self.process = subprocess.Popen(
            [program, folder, dtype, str(min(os.cpu_count(), 8))], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        begin = time.perf_counter()
        said = json.loads(self.process.stdout.readline() or '{"failed": "it ended at once"}')
        if "failed" in said:
            sys.exit(f"gpu_check: the engine failed: {said['failed']}")
        print(f"{said['ready']} on {said['device']}, {dtype}, CUDA graphs {'on' if graphs else 'off'}, "
              f"loaded in {time.perf_counter() - begin:.1f} s", flush=True)
        if device == "cuda" and torch.cuda.get_device_name() not in said["device"]:
            sys.exit("gpu_check: the engine found no GPU")

    def answer(self, texts, tokens):
        asked = [{"prompt": text, "tokens": tokens} for text in texts]
        self.process.stdin.write(json.dumps({"answer": asked}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("gpu_check: the engine ended in the middle of an answer")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def ids(self, texts, tokens):
        return [answer["ids"] for answer in self.answer(texts, tokens)]

    def rate(self, texts, tokens):
        """Tokens a second in all, when all answers are under way."""
        self.answer(texts, tokens)  # Recordings are made the first time.
        answers = self.answer(texts, tokens)
        begin = max(answer["tokens"][0] for answer in answers)
        end = min(answer["tokens"][-1] for answer in answers)
        if end <= begin:  # Not all fit into one batch.
            begin, end = 0, max(answer["tokens"][-1] for answer in answers)
        drawn = sum(sum(begin < at <= end for at in answer["tokens"]) for answer in answers)
        return drawn / (end - begin)


class Transformers:
    """The peer, in this process."""

    def __init__(self, folder, dtype, device):
        import transformers

        transformers.logging.set_verbosity_error()
        kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.name = f"transformers {transformers.__version__}"
        self.device = device
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
        self.model = model.eval().to(device)
        self.model.generation_config.eos_token_id = None

    def generate(self, texts, tokens):
        encoded = [list(text.encode()) for text in texts]
        longest = max(map(len, encoded))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in encoded])
        seen = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in encoded])
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(self.device), attention_mask=seen.to(self.device),
                max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, use_cache=True, pad_token_id=0,
            )
        return out[:, longest:].tolist()

    def seconds(self, texts, tokens):
        begin = time.perf_counter()
        self.generate(texts, tokens)
        return time.perf_counter() - begin

    def rate(self, texts, tokens):
        """Without the prompt: what more tokens take."""
        self.seconds(texts, 8)
        few, many = (min(self.seconds(texts, count) for _ in range(3)) for count in (8, 8 + tokens))
        return len(texts) * tokens / (many - few)


def bandwidth(device):
    """Bytes a second that a copy within the device's memory reads and writes."""
    if device == "cpu":
        return None
    source = torch.empty(1 << 31, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = max(best, 2 * source.numel() / (time.perf_counter() - begin))
    return best


def has_transformers():
    try:
        import transformers  # noqa: F401
    except ImportError:
        return False
    return True


def check(folder, device):
    """In f32, ours draws what transformers draws, with graphs and without."""
    texts = prompts(5)
    peer = Transformers(folder, "f32", device)
    expected = [peer.generate([text], COMPARED)[0] for text in texts]
    del peer
    if device == "cuda":
        torch.cuda.empty_cache()  # Ours is a process of its own.
    good = True
    for graphs in (True, False):
        ours = Ours(folder, "f32", device, graphs)
        for batch in (texts[:1], texts):
            for text, drawn, wanted in zip(batch, ours.ids(batch, COMPARED), expected):
                if drawn != wanted:
                    good = False
                    print(f"DIFFERS with {len(batch)} at a time, graphs {graphs}, after {text!r}:\n"
                          f"  ours         {drawn}\n  transformers {wanted}", flush=True)
        ours.end()
    print(f"tokens: {'the same' if good else 'NOT the same'} as transformers' in f32", flush=True)
    return good


def measure(folder, size, device, answer):
    rates = {}
    for graphs in (True, False):
        ours = Ours(folder, "bf16", device, graphs)
        for batch in BATCHES:
            rates[f"ours, graphs {'on' if graphs else 'off'}", batch] = ours.rate(prompts(batch), answer)
        ours.end()
    if has_transformers():
        peer = Transformers(folder, "bf16", device)
        for batch in BATCHES:
            rates[peer.name, batch] = peer.rate(prompts(batch), answer)
    report(rates, size, bandwidth(device))


def report(rates, size, bytes_a_second):
    names = list(dict.fromkeys(name for name, _ in rates))
    peer = next((name for name in names if name.startswith("transformers")), None)
    # What a step must read: all weights, but of an untied embedding only some rows.
    read = sum(2 * torch.Size(shape).numel() for name, shape in shapes(size)
               if SIZES[size][7] or "embed" not in name)
    print("\n| | at a time | tokens a second | / transformers | weights read, of the bandwidth |\n|---|---|---|---|---|")
    for name in names:
        for batch in BATCHES:
            rate = rates[name, batch]
            ratio = f"{rate / rates[peer, batch]:.2f}" if peer else ""
            share = f"{100 * rate / batch * read / bytes_a_second:.0f} %" if bytes_a_second else ""
            print(f"| {name} | {batch} | {rate:.1f} | {ratio} | {share} |")
    if bytes_a_second:
        print(f"\nbandwidth, of a copy: {bytes_a_second / 1e12:.2f} TB/s; weights read in a step: {read / 1e9:.2f} GB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--answer", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "infernet-gpu-check")
    asked = parser.parse_args()
    if torch.__version__.split("+")[0] != VERSION:
        sys.exit(f"gpu_check: this Python has torch {torch.__version__}; it must be {VERSION}")
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_check: torch finds no GPU here (--device cpu tries the script itself)")
    folder = asked.folder / asked.size
    size = make_model(folder, asked.size, asked.device)
    print(f"model: random weights, {size / 2e9:.2f} billion, in {folder}", flush=True)
    good = True
    if has_transformers():
        good = check(folder, asked.device)
    else:
        skipped("transformers", "this Python has none")
    measure(folder, asked.size, asked.device, asked.answer)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
