"""Encoders of random weights, small enough to live in the tree, and the vectors transformers gives for them.

A BERT for each way of pooling, and an XLM-RoBERTa with a Unigram tokenizer, each a folder as
sentence-transformers lays it out, under engine/tests/reference/.
"""

import json

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from reference import LONG, MADE_WITH, PROMPTS, REFERENCE, TEXTS, write

# Long enough for several texts to share a batch, and of all lengths.
SENTENCES = [*TEXTS[:6], "sea " * 60, *(" ".join(["sea"] * n) for n in (2, 3, 30))]
CORPUS = [*TEXTS, *(prompt["text"] for prompt in [*PROMPTS, LONG] if "text" in prompt)]
SHAPE = dict(
    hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, layer_norm_eps=1e-6,
    hidden_act="gelu",
)


def word_pieces():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=specials, show_progress=False,
    ))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def unigram():
    """As XLM-RoBERTa's: SentencePiece's pieces behind fairseq's four special tokens."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=260, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False,
    ))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def randomize(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "LayerNorm.weight" in name else 0.0, 0.2)
            weight.copy_(weight.bfloat16())


def lay_out(folder, model, tokenizer, pooling, normalize, longest):
    """A folder as sentence-transformers writes it."""
    model.bfloat16().save_pretrained(folder)
    model.float()
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    modes = {f"pooling_mode_{mode}_tokens": pooling == mode for mode in ["mean", "max"]}
    modes["pooling_mode_cls_token"] = pooling == "cls"
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": SHAPE["hidden_size"], **modes},
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
    }
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=1) + "\n")
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def vector(model, ids, pooling, normalize):
    with torch.no_grad():
        hidden = model(torch.tensor([ids])).last_hidden_state[0]
    pooled = hidden.mean(0) if pooling == "mean" else hidden[0]
    pooled = torch.nn.functional.normalize(pooled, dim=0) if normalize else pooled
    return [round(x, 6) for x in pooled.tolist()]


def case(name, model, tokenizer, seed, pooling, normalize, longest):
    randomize(model, seed)
    lay_out(REFERENCE / name, model, tokenizer, pooling, normalize, longest)
    texts = []
    for text in SENTENCES:
        ids = tokenizer.encode(text).ids
        texts.append({"text": text, "tokens": ids, "vector": vector(model, ids, pooling, normalize)})
    return {"folder": name, "context": longest, "texts": texts}


def bert(vocabulary):
    config = transformers.BertConfig(vocab_size=vocabulary, max_position_embeddings=96, **SHAPE)
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def xlm_roberta(vocabulary):
    config = transformers.XLMRobertaConfig(
        vocab_size=vocabulary, max_position_embeddings=162, type_vocab_size=1, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, **SHAPE,
    )
    return transformers.XLMRobertaModel(config, add_pooling_layer=False).eval()


if __name__ == "__main__":
    pieces, grams = word_pieces(), unigram()
    size, grams_size = pieces.get_vocab_size(), grams.get_vocab_size()
    cases = [
        case("tiny-bert-mean", bert(size), pieces, 21, "mean", True, 96),
        case("tiny-bert-cls", bert(size), pieces, 22, "cls", False, 90),
        case("tiny-xlm-roberta", xlm_roberta(grams_size), grams, 23, "mean", True, 160),
    ]
    write(REFERENCE / "tiny-embeddings.json", {"made_with": MADE_WITH, "models": cases})
