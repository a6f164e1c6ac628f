"""Writes what transformers answers, for the engine's tests to compare with.

Greedy answers and tokens of SmolLM2 (its GGUF, unpacked to f32), the vectors of
all-MiniLM-L6-v2, and the sampling's test vectors, which are computed here from
nips/sampling.md alone, with none of the engine's code.
"""

import hashlib
import json
import math
import os
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GgufConfig

TREE = Path(__file__).resolve().parent.parent
MODELS = TREE / ".cache" / "models"
REFERENCE = TREE / "engine" / "tests" / "reference"
EXAMPLES = TREE / "nips" / "examples"
MADE_WITH = {"transformers": transformers.__version__, "torch": torch.__version__}

PROMPTS = [
    {"chat": [{"role": "user", "content": "What is the capital of France?"}]},
    {"chat": [
        {"role": "system", "content": "You are a pirate. Answer in one sentence."},
        {"role": "user", "content": "How do I boil an egg?"},
    ]},
    {"chat": [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada! How can I help you?"},
        {"role": "user", "content": "What is my name, and how many letters has it?"},
    ]},
    {"chat": [{"role": "user", "content": "Write a haiku about the sea, with an emoji \U0001f30a."}]},
    {"text": "Once upon a time, in a village by the sea,"},
    {"text": "def fibonacci(n):\n    "},
    {"text": "Der schnelle braune Fuchs springt über"},
]
# Longer than one step of the engine's prefill.
LONG = {"text": " ".join(f"Line {n}: the number after {n} is {n + 1}." for n in range(1, 41)) + " Line 41:"}
NEW_TOKENS = 48

STRINGS = [
    "Hello, world!", " leading and trailing  ", "tabs\tand\nnew\r\nlines\n\n\n  indented",
    "don't can't we'll I'M HE'S", "1234567890 3.14159 1e-9 ½ ² ٣", "naïve café Ünïcödé",
    "日本語のテキスト、中文文本。한국어", "Привет, мир! Γειά σου Κόσμε", "العربية עברית हिन्दी ไทย",
    "👋🏽 👩‍👩‍👧‍👦 🇪🇺 ❤️‍🔥", "a\u0301 combining e\u0308", "\u200bzero\u200bwidth\ufeff", "\x00\x01\x7f control",
    "<|im_start|>user\nhi<|im_end|>", "<|endoftext|><|notatoken|>", "fn main() { println!(\"{}\", x[0]); } // ok",
    "https://example.com/a?b=c&d=%20#e", "x" * 300, " " * 40 + "y", "The\u00a0non-breaking\u2003spaces",
    "ALLCAPS camelCase snake_case kebab-case", "$€£¥ ©®™ §¶ «»", "{\"json\": [1, 2.5, null, true]}",
]

TEXTS = [
    "The sea is wide.", "Das Meer ist weit.", "A cat sits on the mat.", "Wi-Fi costs 3.50 € in Zürich!",
    "x", "日本語のテキスト 👋", "Free software is a matter of liberty, not price. " * 12,
    "UPPER lower MiXeD\n\nnew lines\tand tabs",
]


def write(path, value):
    """Writes JSON with one line for each element of the outer lists."""

    def line(value):
        return json.dumps(value, ensure_ascii=False)

    def field(value):
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(map(line, value)) + "\n ]"
        return line(value)

    fields = ",\n".join(f" {line(key)}: {field(value)}" for key, value in value.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + fields + "\n}\n")
    print(f"{os.path.relpath(path, TREE)}: {path.stat().st_size} bytes")


def greedy(model, ids, ends, count=NEW_TOKENS):
    """The answer's tokens, and how near the second best came at the nearest: what makes a test brittle."""
    with torch.no_grad():
        output = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False, max_new_tokens=count, repetition_penalty=1.0,
            eos_token_id=ends, pad_token_id=ends[0],
        )[0][len(ids):].tolist()
        logits = model(torch.tensor([ids + output])).logits[0, len(ids) - 1 : -1]
    top = logits.topk(2).values
    margin = (top[:, 0] - top[:, 1]).min().item()
    assert margin > 0.002, f"another machine may answer otherwise (margin {margin}): choose another prompt"
    return output, round(margin, 4)


def encode(tokenizer, prompt):
    if "chat" in prompt:
        text = tokenizer.apply_chat_template(prompt["chat"], tokenize=False, add_generation_prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer(prompt["text"])["input_ids"]


def answer(model, tokenizer, prompt, ends):
    ids = encode(tokenizer, prompt)
    output, margin = greedy(model, ids, ends)
    return {
        "prompt": prompt, "input": ids, "output": output,
        "text": tokenizer.decode(output, skip_special_tokens=True), "least_margin": margin,
    }


def smollm2():
    folder, file = MODELS / "smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    # transformers reads GGUF's tokenizers without how they cut texts: for "smollm", as SmolLM2's own
    # tokenizer.json and llama.cpp say, every digit stands alone.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).eval()

    answers = [answer(model, tokenizer, prompt, [tokenizer.eos_token_id]) for prompt in [*PROMPTS, LONG]]
    write(REFERENCE / "answers.json", {"made_with": MADE_WITH, "model": file, "answers": answers})
    strings = [{"text": text, "tokens": tokenizer(text)["input_ids"]} for text in STRINGS]
    for string in strings:
        string["decoded"] = tokenizer.decode(string["tokens"], skip_special_tokens=True)
    write(REFERENCE / "tokens.json", {"made_with": MADE_WITH, "model": file, "strings": strings})


TINY = dict(
    vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rope_theta=5000.0, rms_norm_eps=1e-6,
    tie_word_embeddings=False, attention_bias=False, bos_token_id=0, eos_token_id=[0, 2], pad_token_id=0,
)
TINY_TEMPLATE = """{% for message in messages %}
  {%- if message.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('unknown role') }}{% endif %}
  {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content.strip() ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TINY_PROMPTS = [
    {"text": "The sea and"}, {"text": "hello hello \U0001f30a"}, {"chat": [{"role": "user", "content": " Who are you? "}]},
    {"text": "abcdefghijklmnop"}, {"text": "1 2 3"},
]


def tiny_llama():
    """A Llama of random weights, small enough to live in the tree: as a folder of two shards, and as a GGUF."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator([p["text"] for p in PROMPTS + [LONG] if "text" in p], trainers.BpeTrainer(
        vocab_size=TINY["vocab_size"], special_tokens=[AddedToken(t, special=True) for t in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    ))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=specials[0], eos_token=specials[2], chat_template=TINY_TEMPLATE
    )
    torch.manual_seed(8)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TINY)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3)
            weight.copy_(weight.bfloat16())
    answers = [answer(model, tokenizer, prompt, TINY["eos_token_id"]) for prompt in TINY_PROMPTS]
    folder = REFERENCE / "tiny-llama"
    model.bfloat16().save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    write(REFERENCE / "tiny-answers.json", {"made_with": MADE_WITH, "model": folder.name, "answers": answers})
    tiny_gguf(model, core, REFERENCE / "tiny-llama.gguf")


def tiny_gguf(model, tokenizer, path):
    """The same model as llama.cpp's converter would write it."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(TINY["num_hidden_layers"])
    writer.add_context_length(TINY["max_position_embeddings"])
    writer.add_embedding_length(TINY["hidden_size"])
    writer.add_feed_forward_length(TINY["intermediate_size"])
    writer.add_head_count(TINY["num_attention_heads"])
    writer.add_head_count_kv(TINY["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(TINY["rms_norm_eps"])
    writer.add_rope_freq_base(TINY["rope_theta"])
    writer.add_rope_dimension_count(TINY["head_dim"])
    writer.add_vocab_size(TINY["vocab_size"])
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t.startswith("<|") else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(2)
    writer.add_chat_template(TINY_TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, TINY["num_hidden_layers"])
    for name, weight in model.float().state_dict().items():
        for part, heads in [("q_proj", TINY["num_attention_heads"]), ("k_proj", TINY["num_key_value_heads"])]:
            if part in name:
                weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        kind = gguf.GGMLQuantizationType.BF16 if weight.dim() == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(weight.numpy(), kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{os.path.relpath(path, TREE)}: {path.stat().st_size} bytes")


def minilm():
    folder = MODELS / "all-minilm-l6-v2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=False, padding=False)["input_ids"]
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0]
        vector = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        texts.append({"text": text, "tokens": ids, "vector": [round(x, 6) for x in vector.tolist()]})
    write(REFERENCE / "embeddings.json", {"made_with": MADE_WITH, "model": "all-minilm-l6-v2", "texts": texts})


def philox(counter, key):
    """Philox4x32-10."""
    word = 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ key[0], b & word, (a >> 32) ^ counter[3] ^ key[1], a & word]
        key = [(key[0] + 0x9E3779B9) & word, (key[1] + 0xBB67AE85) & word]
    return counter


def gumbel(seed, position, token):
    block = philox([token // 4, position, 0, 0], [seed & 0xFFFFFFFF, seed >> 32])
    uniform = (block[token % 4] + 0.5) / 2**32
    return -math.log(-math.log(uniform))


def filtered(logits, temperature, top_k, top_p):
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if temperature == 0:
        return ranked[:1]
    if top_k:
        ranked = ranked[:top_k]
    if top_p < 1:
        weights = [math.exp((logits[token] - logits[ranked[0]]) / temperature) for token in ranked]
        total, kept = 0.0, 0
        for weight in weights:
            total, kept = total + weight, kept + 1
            if total >= top_p * sum(weights):
                break
        ranked = ranked[:kept]
    return sorted(ranked)


def draw(logits, temperature, top_k, top_p, seed, position):
    kept = filtered(logits, temperature, top_k, top_p)
    if temperature == 0:
        return kept[0]
    return max(kept, key=lambda token: (logits[token] / temperature + gumbel(seed, position, token), -token))


def sampling():
    seeds = [0, 1, 42, 2**32, 2**53 - 1, 2**64 - 1]
    noise = [
        {"seed": str(seed), "position": position, "token": token, "gumbel": gumbel(seed, position, token)}
        for seed in seeds
        for position, token in [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (7, 49151), (100000, 128255)]
    ]
    # Eighths are exact in every number format; two tokens share the greatest.
    logits = [((token * 37) % 64 - 32) / 8 for token in range(64)]
    logits[50] = max(logits)
    draws = []
    for temperature, top_k, top_p in [
        (0, 0, 1), (1, 0, 1), (0.75, 0, 1), (2, 0, 1), (1, 5, 1), (1, 1, 1), (1, 0, 0.5), (1, 0, 0.875),
        (0.5, 10, 0.75), (1.5, 40, 0.9375), (0.25, 0, 0.125), (1, 500, 1),
    ]:
        for seed, position in [(42, 0), (42, 1), (2**64 - 1, 1000)]:
            draws.append({
                "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": str(seed),
                "position": position, "candidates": filtered(logits, temperature, top_k, top_p),
                "token": draw(logits, temperature, top_k, top_p, seed, position),
            })
    write(EXAMPLES / "sampling.json", {"noise": noise, "logits": logits, "draws": draws})


def manifest(**fields):
    """A manifest, its canonical JSON and the identity, as nips/models.md says."""
    fields["files"] = sorted(fields["files"], key=lambda file: (file["role"], file["sha256"]))
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    identity = hashlib.sha256(b"infernet/model/1\n" + canonical.encode()).hexdigest()
    return {"manifest": fields, "canonical": canonical, "id": identity}


def sha256(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.read_bytes()).hexdigest()


def models():
    tiny, minilm = REFERENCE / "tiny-llama", MODELS / "all-minilm-l6-v2"
    module = REFERENCE / "tiny-classifier"
    smollm2 = MODELS / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    template = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name).chat_template

    def file(role, path):
        return {"role": role, "sha256": sha256(path)}

    examples = [
        {"what": "a GGUF: SmolLM2-135M-Instruct, Q4_1", **manifest(
            architecture="llama", chat_template=sha256(template.encode()), context=8192, end_tokens=[2],
            files=[file("gguf", smollm2)], task="text-generation",
        )},
        {"what": "a folder of safetensors: all-MiniLM-L6-v2, which has no chat template", **manifest(
            architecture="bert", context=256, end_tokens=[], task="embedding",
            files=[
                file("config", minilm / "config.json"), file("modules", minilm / "modules.json"),
                file("pooling", minilm / "1_Pooling" / "config.json"),
                file("tokenizer", minilm / "tokenizer.json"), file("weights", minilm / "model.safetensors"),
            ],
        )},
        {"what": "a folder of several shards: the tests' own tiny Llama", **manifest(
            architecture="llama", chat_template=sha256(tiny / "chat_template.jinja"), context=128,
            end_tokens=[0, 2], task="text-generation",
            files=[
                file("config", tiny / "config.json"), file("tokenizer", tiny / "tokenizer.json"),
                file("tokenizer-config", tiny / "tokenizer_config.json"),
                *(file("weights", shard) for shard in tiny.glob("*.safetensors")),
            ],
        )},
        {"what": "a module: the tests' own tiny classifier", **manifest(
            architecture="torchscript", context=16_777_216, end_tokens=[], task="tensors",
            files=[file("interface", module / "module.json"), file("script", module / "classifier.pt")],
        )},
    ]
    write(EXAMPLES / "model.json", {"examples": examples})


if __name__ == "__main__":
    sampling()
    tiny_llama()
    minilm()
    smollm2()
    models()
