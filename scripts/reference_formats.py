"""What model files hold, as the packages that define their formats read it, under engine/tests/reference/formats/.

Quantised blocks and their weights (gguf's dequantize), tokenizers inside GGUFs of small vocabularies and the tokens that
transformers makes with them, and chat templates that say what the families' templates say, and what they make of chats.
"""

import json
from collections import Counter
from datetime import datetime

import gguf
import numpy
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.utils import chat_template_utils

from reference import LONG, PROMPTS, REFERENCE, STRINGS, write

FORMATS = REFERENCE / "formats"
MADE_WITH = {"transformers": transformers.__version__, "gguf": "0.19.0"}
CORPUS = [*STRINGS, *(prompt["text"] for prompt in [*PROMPTS, LONG] if "text" in prompt)] * 2

# Where a block's numbers of two bytes stand: random bits there could be no number.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
ROWS, COLUMNS = 4, 256


def quants():
    """Random blocks, four rows of 256 weights in each format, and their weights; both in hexadecimal."""
    random, tensors = numpy.random.default_rng(4), []
    for name, halves in HALVES.items():
        kind = gguf.GGMLQuantizationType[name]
        weights, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (ROWS * COLUMNS // weights, size), dtype=numpy.uint8)
        for place in halves:
            scales = random.normal(0, 0.1, len(blocks)).astype(numpy.float16)
            blocks[:, place : place + 2] = scales.view(numpy.uint8).reshape(-1, 2)
        # Plus 0: of the two zeros there is one.
        weights = gguf.quants.dequantize(blocks.reshape(ROWS, -1), kind) + numpy.float32(0)
        tensors.append({
            "encoding": int(kind), "name": name, "blocks": blocks.tobytes().hex(),
            "weights": weights.astype("<f4").tobytes().hex(),
        })
    write(FORMATS / "quants.json", {"made_with": MADE_WITH, "rows": ROWS, "columns": COLUMNS, "tensors": tensors})


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def trained(pattern, vocab_size=420):
    """Merges of bytes, of words that the pattern cuts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level_cuts(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(bytes_to_unicode().values()), show_progress=False,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
    ))
    return tokenizer


def byte_level_cuts(name):
    if name == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([first, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    if name == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level(name):
    """A vocabulary of bytes: its metadata, and what its model's own tokenizer.json would be."""
    tokenizer = trained(name)
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    # One that users may write, behind the others.
    tokens.append("<think>")
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    if name in ["llama-bpe", "tekken"]:
        tokenizer.model.ignore_merges = True
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    types = [3 if token in SPECIAL else 4 if token == "<think>" else 1 for token in tokens]
    data = {
        "model": "gpt2", "pre": name, "tokens": tokens, "token_type": types,
        "merges": [" ".join(merge) for merge in state["merges"]], "bos_token_id": 0, "eos_token_id": 2,
    }
    return data, tokenizer, ["<|endoftext|>"] if name in ["llama-bpe", "tekken"] else []


def sentence_piece(name, first_space):
    """Pieces with scores, as Llama 2 has them (a space comes before every text) or Gemma (none does)."""
    trainer = Tokenizer(models.BPE())
    trainer.normalizer = normalizers.Replace(" ", "▁")
    trainer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    # What is in no piece is spelled in bytes: many characters are in none.
    counts = Counter("".join(CORPUS))
    known = set(sorted(counts, key=lambda character: (-counts[character], character))[:90])
    texts = ["".join(character for character in text if character in known) for text in CORPUS]
    trainer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    state = json.loads(trainer.to_str())["model"]
    made = ["".join(merge) for merge in state["merges"]]
    alphabet = [token for token in sorted(state["vocab"], key=state["vocab"].get) if token not in made]
    special = ["<unk>", "<s>", "</s>"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    runs = [] if first_space else ["▁" * length for length in range(2, 9)]
    lines = [] if first_space else ["\n\n", "\n\n\n"]
    pieces = list(dict.fromkeys([*lines, *runs, *made]))
    normal = [*pieces, *alphabet]
    tokens = [*special, *octets, *normal, "<start_of_turn>", "<think>"]
    types = [2, 3, 3, *[6] * 256, *[4 if piece in lines + runs else 1 for piece in normal], 3, 4]
    order = {piece: -float(place) for place, piece in enumerate(normal)}
    scores = [order.get(token, 0.0 if token in special else -1000.0) for token in tokens]
    vocab = {token: number for number, token in enumerate(tokens)}
    # Pieces are made of pieces: neither bytes nor special tokens are.
    merges = transformers.tokenization_utils_base.generate_merges(
        vocab, order, skip_tokens=[token for token in tokens if token not in order]
    )
    core = Tokenizer(models.BPE(
        vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True,
    ))
    steps = [normalizers.Prepend("▁")] if first_space else []
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    ends = [decoders.Strip(" ", 1, 0)] if first_space else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    added = [*special, "<start_of_turn>"]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    core.add_tokens([AddedToken(token, normalized=False) for token in ["<think>", *lines]])
    data = {
        "model": "llama", "pre": "default", "scores": scores, "token_type": types, "bos_token_id": 1, "eos_token_id": 2,
        "unknown_token_id": 0, "add_space_prefix": first_space,
        # As the files of Gemma have them.
        "tokens": [token.replace("▁", " ") if token in runs else token for token in tokens],
    }
    return data, core, ["<s>"]


def of_mistral():
    """As Mistral's tokenizer.json: a space before the first word alone, and only where there is none."""
    _, core, begin = sentence_piece("mistral", first_space=True)
    core.normalizer = None
    core.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return None, core, begin


def of_gemma():
    """As Gemma's tokenizer.json: runs of spaces are added tokens that no text holds."""
    data, core, begin = sentence_piece("gemma", first_space=False)
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    core.add_tokens([AddedToken("▁" * length, normalized=False) for length in range(2, 9)])
    return None, core, begin


def tokenizers():
    """GGUFs with nothing but a tokenizer and files like tokenizer.json, and their tokens of the strings."""
    kinds = [(f"{name}.gguf", "llama", byte_level(name)) for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"]]
    kinds.append(("llama.gguf", "llama", sentence_piece("llama", first_space=True)))
    kinds.append(("gemma.gguf", "gemma3", sentence_piece("gemma", first_space=False)))
    kinds.append(("llama-bpe.json", None, byte_level("llama-bpe")))
    kinds.append(("qwen2.json", None, byte_level("qwen2")))
    kinds.append(("llama.json", None, sentence_piece("llama", first_space=True)))
    kinds.append(("mistral.json", None, of_mistral()))
    kinds.append(("gemma.json", None, of_gemma()))
    extra = [
        "<think>x</think>", "a <|im_end|> b<|im_end|>c", "</s>one</s> two", "<start_of_turn>user\n\n\nhi", "<0x41>", "</s",
        "HelloWorld fooBarBAZ 12345 don'T\n/path", " ",
    ]
    made = []
    for file, architecture, (data, core, begin) in kinds:
        if begin:
            special = [(token, core.token_to_id(token)) for token in begin]
            core.post_processor = processors.TemplateProcessing(single=f"{begin[0]} $A", special_tokens=special)
        if architecture:
            write_vocabulary(FORMATS / file, architecture, data)
        else:
            (FORMATS / file).write_text(core.to_str())
        fast = PreTrainedTokenizerFast(tokenizer_object=core)
        strings = []
        for text in [*STRINGS, *extra]:
            tokens = fast(text)["input_ids"]
            decoded = fast.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            strings.append({"text": text, "tokens": tokens, "decoded": decoded})
        made.append({"file": file, "strings": strings})
    write(FORMATS / "tokenizers.json", {"made_with": MADE_WITH, "tokenizers": made})


def write_vocabulary(path, architecture, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in data.items():
        key = f"tokenizer.ggml.{key}"
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# In our own words, with what the templates of these families are made of.
TEMPLATES = {
    # A system message apart from the others, a date, tools that are not there, every part trimmed.
    "date-and-tools": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date is defined %}
    {%- if strftime_now is defined %}
        {%- set date = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date = "1 Feb 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" }}
{%- if tools is not none %}{{- "You have tools.\\n" }}{%- endif %}
{{- "Date: " + date + "\\n\\n" }}
{{- system }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif message.role == "tool" %}
        {{- message.content | tojson }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
""",
    # Roles that must alternate, the system message with the last user's, a namespace, macros, unpacked pairs.
    "alternating": """{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set users = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0, text='') %}
{%- for message in turns %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant must take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{%- macro wrap(name, text) -%}[{{ name|upper }}]{{ text }}[/{{ name|upper }}]{%- endmacro -%}
{{- bos_token }}
{%- for message in turns %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system is defined %}
            {{- wrap('inst', ' ' + system + "\\n\\n" + message["content"]) }}
        {%- else %}
            {{- wrap('inst', ' ' + message["content"]) }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {%- set ns.text = message["content"].strip() %}
        {{- " " + ns.text + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, and not " + message["role"] + "!") }}
    {%- endif %}
{%- endfor %}
{{- "[N " ~ users | length ~ "]" }}
""",
    # A default system message, each turn between marks.
    "default-system": """{%- if tools %}
    {{- 'tools ' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nBe of use.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    # Thoughts that are left out of earlier turns; messages from the last to the first; text methods.
    "thoughts": """{%- set ns = namespace(open=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.open and message.role == "user" and message.content is string and not(message.content.startswith('<answer>') and message.content.endswith('</answer>')) %}
        {%- set ns.open = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.thought is string %}
            {%- set thought = message.thought %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
    {%- if loop.previtem is defined and loop.previtem.role == message.role %}{{- '(again)' }}{%- endif %}
    {%- if loop.nextitem is not defined %}{{- '(end)' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    # The system message as the beginning of the first turn; content that may be a list of parts.
    "first-turn": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must take turns: user, assistant, user, assistant") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("a content of no known kind") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    # What Python writes otherwise than others do.
    "python": """{%- for message in messages %}
{%- if loop.index > 3 %}{%- break %}{%- endif %}
{{ loop.index0 }} {{ message | tojson }} {{ {'b': [1, 2.5, none, true], 'a': message.content} | tojson(indent=2) }}
{{ message.items() | list | length }} {{ message.get('name', 'nobody') }} {{ message.content.upper().lower().capitalize() }}
{{ message.content.replace('e', '3')[:5] }}|{{ message.content[-3:] }}|{{ message.content.split() | join(',') }}|{{ message.content.splitlines() | length }}
{{ message.content.find('e') }} {{ message.content | length }} {{ message.content.count('l') }} {{ tools is none }} {{ documents is none }} {{ '%s' | format(message.role) }}
{{ strftime_now('%Y-%m-%d %H:%M %B %A %j') }} {{ messages | map(attribute='role') | unique | join('/') }} {{ messages | last == message }} {{ none }} {{ true }}
{%- generation -%} said: {{ message.role }} {%- endgeneration %}
{% endfor %}
{{- tools is iterable }} {{ nobody is iterable }} {{ messages is iterable }} {{ 1 is iterable }}
{{ [1, 2] + [3] }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 'x' * 3 }} {{ ('a', 'b')[1] }} {{ "it's" ~ 1.0 }} {{ {'k': 'v'} }}
""",
}
CHATS = [
    [{"role": "user", "content": " Hello, \"world\" <b> & 'c'!\n"}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Größe?\n\nZeile"}],
    [
        {"role": "system", "content": "S"}, {"role": "user", "content": "one"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n two "}, {"role": "user", "content": "three"},
    ],
    [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "<answer>c</answer>"},
        {"role": "assistant", "content": "<think>\nd\n</think>e"}, {"role": "user", "content": "<answer>f</answer>"},
    ],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [{"role": "assistant", "content": "I begin"}, {"role": "system", "content": "late"}],
]


class OneDay(datetime):
    @classmethod
    def now(cls):
        return cls(2026, 1, 1)


def templates():
    """What transformers makes of chats, on the one day that there is in templates (nips/models.md)."""
    chat_template_utils.datetime = OneDay
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained("gpt-2", 300), bos_token="<s>", eos_token="</s>",
    )
    rendered = []
    for name, template in TEMPLATES.items():
        for number, chat in enumerate(CHATS):
            try:
                said = {"text": tokenizer.apply_chat_template(
                    chat, chat_template=template, tokenize=False, add_generation_prompt=True,
                )}
            except Exception as error:
                said = {"refusal": str(error)}
            rendered.append({"template": name, "chat": number, **said})
    write(FORMATS / "templates.json", {
        "made_with": MADE_WITH, "templates": TEMPLATES, "chats": CHATS, "rendered": rendered,
    })


if __name__ == "__main__":
    quants()
    tokenizers()
    templates()
