"""Writes a small model of random weights for each family of decoders, and what transformers answers with it.

Each model is a folder, as Hugging Face's transformers saves it, and a GGUF, as llama.cpp's converter would write
it, under engine/tests/reference/families/. All share one tokenizer, whose tokens are mostly single bytes.
"""

import copy
import json
import math
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from reference import MADE_WITH, NEW_TOKENS, PROMPTS, REFERENCE, TREE, greedy, write

FOLDER = REFERENCE / "families"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ENDS = [0, 2]
# The last is longer than every window below, and than a step of the engine's prefill.
TEXTS = ["The sea and", "hello hello \U0001f30a", " ".join(f"Line {n} says {n * n % 97}." for n in range(1, 46))]
# Models are drawn until no answer hangs on less than this, in logits, and none goes round in a circle.
LEAST_MARGIN = 0.01
LEAST_DIFFERENT_TOKENS = 8

SIZES = dict(
    vocab_size=272, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5,
    bos_token_id=0, eos_token_id=ENDS, pad_token_id=0,
)


@dataclass
class Family:
    """A model to make."""

    name: str
    model: str  # the class in transformers
    config: dict[str, Any]
    # Changes of the config each of which must change the long answer: else it would prove nothing of that part.
    telling: list[dict[str, Any]]
    arch: str | None = None  # in GGUF; no file where there is none
    shard: str = "1GB"
    as_published: bool = True  # the config as transformers 4 wrote it, which most published models have
    metadata: dict[str, Any] = field(default_factory=dict)  # more of the GGUF's


FAMILIES = [
    Family(
        "llama2", "LlamaForCausalLM", dict(
            num_key_value_heads=4, attention_bias=True, mlp_bias=True,
            rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0},
        ), [{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}], "llama",
    ),
    Family(
        "llama3", "LlamaForCausalLM", dict(
            tie_word_embeddings=True, rope_parameters={
                # Wavelengths of 6, 46, 344 and 2546 tokens: kept, kept, between and stretched.
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512, "rope_theta": 3000.0,
            },
        ), [{"rope_parameters": {"rope_type": "default", "rope_theta": 3000.0}}], "llama", shard="30KB",
    ),
    Family(
        "mistral", "MistralForCausalLM", dict(head_dim=16, sliding_window=40),
        [{"sliding_window": None}, {"sliding_window": 39}], "llama", shard="40KB",
        metadata={"attention.sliding_window": 40},
    ),
    Family("qwen2", "Qwen2ForCausalLM", dict(tie_word_embeddings=True), [], "qwen2", as_published=False),
    Family(
        "qwen2-windows", "Qwen2ForCausalLM", dict(use_sliding_window=True, sliding_window=33, max_window_layers=1),
        [{"use_sliding_window": False}, {"max_window_layers": 0}],
    ),
    Family(
        "qwen3", "Qwen3ForCausalLM", dict(
            head_dim=16, rope_parameters={
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 5000.0,
            },
        ), [{"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}], "qwen3",
    ),
    Family(
        "gemma3", "Gemma3ForCausalLM", dict(
            num_hidden_layers=6, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
            sliding_window=40, query_pre_attn_scalar=16, rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ), [
            {"sliding_window": 1024}, {"query_pre_attn_scalar": 24}, {"layer_types": ["sliding_attention"] * 6},
            {"rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            }},
        ], "gemma3", shard="30KB",
    ),
]

VISION = dict(
    hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4,
    num_channels=1, vision_use_head=False,
)


def tokenizer():
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator([p["text"] for p in PROMPTS if "text" in p], trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"], special_tokens=[AddedToken(t, special=True) for t in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    ))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=SPECIALS[0], eos_token=SPECIALS[2])


def configuration(family, **changes):
    kind = getattr(transformers, family.model).config_class
    return kind(**copy.deepcopy({**SIZES, **family.config, **changes}))


def randomise(model, seed):
    """Weights of a size at which each part has its say, as bf16 holds them."""
    torch.manual_seed(seed)
    # Gemma makes its embeddings larger itself; were they large, each token would be followed by itself.
    gemma = "Gemma" in type(model).__name__
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0, (0.1 if gemma else 0.8) if "embed_tokens" in name else 0.3)
            elif name.endswith("bias"):
                weight.normal_(0, 0.3)
            elif gemma and name.endswith("model.norm.weight"):
                weight.fill_(9)
            elif gemma and ("q_norm" in name or "k_norm" in name):
                weight.normal_(1.5, 0.3)
            else:
                weight.add_(torch.randn_like(weight) * 0.2)
            weight.copy_(weight.bfloat16())


def answered(model, prompts):
    """The answers, or None where one is too brittle or too dull to compare with."""
    answers = []
    for ids in prompts:
        try:
            output, margin = greedy(model, ids, ENDS)
        except AssertionError:
            return None
        if margin < LEAST_MARGIN or len(set(output)) < LEAST_DIFFERENT_TOKENS or len(output) < NEW_TOKENS:
            return None
        answers.append({"output": output, "least_margin": margin, "logprobs": logprobs(model, ids, output)})
    return answers


def in_bf16(model, prompts, answers):
    """How far the log-probabilities are from these on average, if the same is computed in bf16."""
    short = copy.deepcopy(model).bfloat16()
    far = []
    for ids, answer in zip(prompts, answers):
        found = logprobs(short, ids, answer["output"])
        far.extend(abs(a - b) for a, b in zip(found, answer["logprobs"]))
    return round(sum(far) / len(far), 4)


def logprobs(model, ids, output):
    """The log-probability of each token of an answer."""
    with torch.no_grad():
        logits = model(torch.tensor([ids + output])).logits[0, len(ids) - 1 : -1].float()
    chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(output)[:, None])[:, 0]
    return [round(x, 5) for x in chosen.tolist()]


def tells(family, model, prompts, answers):
    """Does every change of the config that matters change the long answer?"""
    for change in family.telling:
        other = type(model)(configuration(family, **change)).eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            logits = other(torch.tensor([prompts[-1] + answers[-1]["output"]])).logits[0, len(prompts[-1]) - 1 : -1]
        if logits.argmax(-1).tolist() == answers[-1]["output"]:
            return False
    return True


def draw(family, prompts):
    """A model whose answers are fit to be compared with, and these."""
    model = getattr(transformers, family.model)(configuration(family)).eval()
    start = copy.deepcopy(model.state_dict())
    for seed in range(1000):
        model.load_state_dict(start)
        randomise(model, seed)
        answers = answered(model, prompts)
        if answers and tells(family, model, prompts, answers):
            print(f"{family.name}: seed {seed}, least margin {min(a['least_margin'] for a in answers)}")
            return model, answers
    raise SystemExit(f"no seed gives a good {family.name}: change its sizes")


def save_folder(model, words, folder, shard, as_published):
    shutil.rmtree(folder, ignore_errors=True)
    copy.deepcopy(model).bfloat16().save_pretrained(folder, max_shard_size=shard)
    words.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if as_published:
        published(config)
        published(config.get("text_config", {}))
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def published(config):
    """Turns a config into what transformers 4 wrote."""
    rope = config.pop("rope_parameters", None)
    config.pop("layer_types", None)
    if rope is None:
        return
    if "full_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 6
        config.pop("_sliding_window_pattern", None)
        rope = rope["full_attention"]
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None


def save_gguf(model, words, path, family, raw={}):
    """The model as llama.cpp's converter would write it; with the bytes and the format of matrices that have some."""
    config = model.config
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    writer = gguf.GGUFWriter(path, family.arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if family.arch == "llama":
        writer.add_rope_dimension_count(head_width(config))
        writer.add_vocab_size(config.vocab_size)
    if family.arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
    for key, value in family.metadata.items():
        writer.add_uint32(f"{family.arch}.{key}", value)
    add_rope(writer, config)
    add_tokenizer(writer, words)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for name, weight in model.float().state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name in raw:
            weight, kind = torch.from_numpy(raw[name][0]), raw[name][1]
        else:
            kind = gguf.GGMLQuantizationType.BF16 if weight.dim() == 2 else gguf.GGMLQuantizationType.F32
        data = as_converted(name, weight, config, family.arch).numpy()
        data = data if name in raw else gguf.quants.quantize(data, kind)
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(own, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{os.path.relpath(path, TREE)}: {path.stat().st_size} bytes")


def head_width(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def add_rope(writer, config):
    rope = config.rope_parameters
    if "full_attention" in rope:
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_width(config)))


def llama3_factors(rope, width):
    """What each frequency is divided by."""
    context, low, high = (rope[k] for k in ["original_max_position_embeddings", "low_freq_factor", "high_freq_factor"])
    factors = []
    for i in range(0, width, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / width)
        if wavelength < context / high:
            factors.append(1)
        elif wavelength > context / low:
            factors.append(rope["factor"])
        else:
            smooth = (context / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return numpy.array(factors, dtype=numpy.float32)


def add_tokenizer(writer, words):
    state = json.loads(words.backend_tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in SPECIALS else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(2)


def as_converted(name, weight, config, arch):
    """Llamas have the rows of queries and keys in another order, Gemmas one added to their norms."""
    if arch == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    if arch == "gemma3" and name.endswith("norm.weight"):
        return weight + 1
    return weight


def multimodal(words, prompts):
    """Gemma 3 as it is published from 4 billion parameters on: beside a part that sees."""
    text = next(family for family in FAMILIES if family.name == "gemma3")
    changes = dict(num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])
    family = Family("gemma3-multimodal", "Gemma3ForConditionalGeneration", text.config, [], as_published=False)
    config = transformers.Gemma3Config(
        text_config=configuration(text, **changes), vision_config=transformers.SiglipVisionConfig(**VISION),
        mm_tokens_per_image=4, eos_token_id=ENDS, tie_word_embeddings=True,
    )
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    start = copy.deepcopy(model.state_dict())
    for seed in range(1000):
        model.load_state_dict(start)
        randomise(model, seed)
        answers = answered(model, prompts)
        if answers:
            break
    save_folder(model, words, FOLDER / family.name, "1GB", as_published=False)
    return {"forms": [family.name], "bf16": in_bf16(model, prompts, answers), "answers": answers}


# A Llama whose rows fill blocks of 256 weights, but for those of two matrices.
QUANTISED = dict(
    hidden_size=256, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
    head_dim=16, tie_word_embeddings=True,
)
# For each file its format, and what llama.cpp takes for rows of less than a block.
FORMATS = {"Q4_0": "Q4_0", "Q4_1": "Q4_1", "Q8_0": "Q8_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
# Where in a block of 256 its scales (f16) are, and how large these must be, against the weights' size: the first
# is multiplied with numbers of which the rest of a random block is made, the second takes the mean away.
SCALES = {"Q4_K": [(0, 1 / 258), (2, 7.5 / 258)], "Q5_K": [(0, 1 / 527), (2, 15.5 / 527)], "Q6_K": [(208, 1 / 1366)]}
WEIGHT_SIZE = 0.15


def blocks(kind, shape, generator):
    """A matrix of random weights in a format of GGUF: its bytes, row by row."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    if kind.name not in SCALES:
        return gguf.quants.quantize(generator.normal(0, WEIGHT_SIZE, shape).astype(numpy.float32), kind)
    raw = generator.integers(0, 256, (shape[0] * shape[1] // 256, size), dtype=numpy.uint8)
    for place, scale in SCALES[kind.name]:
        raw[:, place : place + 2] = numpy.array([scale * WEIGHT_SIZE], dtype=numpy.float16).view(numpy.uint8)
    return raw.reshape(shape[0], -1)


def quantised(name, words, prompts):
    """A GGUF in one format, against the model of what its weights are as f32."""
    family = Family(f"llama-{name.lower()}", "LlamaForCausalLM", QUANTISED, [], "llama")
    model = transformers.LlamaForCausalLM(configuration(family)).eval()
    for seed in range(1000):
        generator = numpy.random.default_rng(seed)
        raw = {}
        with torch.no_grad():
            for part, weight in model.named_parameters():
                if weight.dim() < 2:
                    continue
                format = name if weight.shape[1] % 256 == 0 else FORMATS[name]
                kind = gguf.GGMLQuantizationType[format]
                raw[part] = blocks(kind, weight.shape, generator), kind
                weight.copy_(torch.from_numpy(gguf.quants.dequantize(*raw[part]).reshape(weight.shape)))
        answers = answered(model, prompts)
        if answers:
            break
    print(f"{family.name}: seed {seed}, least margin {min(a['least_margin'] for a in answers)}")
    save_gguf(model, words, FOLDER / f"{family.name}.gguf", family, raw)
    return {"forms": [f"{family.name}.gguf"], "bf16": in_bf16(model, prompts, answers), "answers": answers}


def main():
    words = tokenizer()
    prompts = [words(text)["input_ids"] for text in TEXTS]
    assert len(prompts[-1]) > 512, len(prompts[-1])
    shutil.rmtree(FOLDER, ignore_errors=True)
    models = []
    torch.set_num_threads(1)
    for family in FAMILIES:
        model, answers = draw(family, prompts)
        forms = [family.name]
        save_folder(model, words, FOLDER / family.name, family.shard, family.as_published)
        if family.arch:
            forms.append(f"{family.name}.gguf")
            save_gguf(model, words, FOLDER / forms[-1], family)
        models.append({"forms": forms, "bf16": in_bf16(model, prompts, answers), "answers": answers})
    models.append(multimodal(words, prompts))
    models.extend(quantised(name, words, prompts) for name in FORMATS)
    write(FOLDER / "answers.json", {
        "made_with": MADE_WITH,
        "prompts": [{"text": text, "input": ids} for text, ids in zip(TEXTS, prompts)],
        "models": models,
    })


if __name__ == "__main__":
    main()
