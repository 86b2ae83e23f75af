"""Writing a trained encoder as a folder that transformers loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resdomains.core.branches.attention import SelfAttention
from resdomains.core.heads import FirstTokenHead, Head, ReluPooler, TanhPooler
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.interop.encoder_naming import FAMILIES, linear, names_of_family
from resdomains.interop.encoder_shape import (
    DISTILLED_EPS,
    EncoderShape,
    config_of,
    reasons_against,
    shape_of,
)
from resdomains.interop.sources import library

_CLASSES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}
_POSITIONS = "embeddings.position_embeddings.weight"
_TYPES = "embeddings.token_type_embeddings.weight"
# What special tokens are usually called, by the part that they play in transformers.
_SPECIAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_TEXT = "pip install 'resdomains[text]'"
_SIDES = {"head": "right", "tail": "left", "both": "right"}


def export_encoder(
    backbone: nn.Module,
    head: nn.Module,
    *,
    tokenizer: str,
    classes: Sequence[str],
    multilabel: bool,
    max_length: int,
    folder: Path,
    truncation: str = "head",
    scale: float = 1.0,
    shift: float = 0.0,
) -> str:
    """Writes a text classifier that ``transformers.pipeline("text-classification", folder)`` loads.

    The folder gets ``config.json``, ``model.safetensors``, ``tokenizer.json`` and
    ``tokenizer_config.json``; outputs in evaluation are those of ``head(backbone(ids, lengths))``.
    ``FirstTokenHead`` with ``TanhPooler`` becomes a BERT, or a RoBERTa where positions begin behind
    the padding's id as its do; with ``ReluPooler`` a DistilBERT.

    Args:
        backbone: An encoder of BERT's kind: ``bert``, ``roberta`` and the sizes of them.
        head: Maps its features to a number for each class.
        tokenizer: The JSON of a ``tokenizers.Tokenizer``.
        classes: Names of the classes; none for a network that gives one number.
        multilabel: Whether each class has a probability of its own.
        max_length: Tokens that a text has at most, the special ones included.
        folder: A new or empty folder.
        truncation: What is kept of longer texts: ``head``, ``tail`` or ``both``; pipelines that are
            asked to truncate keep one end, the head for ``both``.
        scale: Where the network gives one number: it is multiplied by this,
        shift: and this is added.

    Returns:
        What was written, in words.

    Raises:
        ValueError: transformers has no model of this kind; the message says what it lacks. Or the
            folder holds something, or the tokenizer has more ids than the network.
        ImportError: tokenizers or safetensors is not installed.
    """
    if truncation not in _SIDES:
        raise ValueError(f"truncation: expected one of {', '.join(_SIDES)}, got {truncation!r}")
    if classes and (scale, shift) != (1.0, 0.0):
        raise ValueError("scale, shift: only a network without classes gives a number to map")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"folder: expected a new or empty folder, got {folder}")
    tokens = library("tokenizers", _TEXT).Tokenizer.from_str(tokenizer)
    network, classifier = _expressible(backbone, head)
    shape = shape_of(network)
    if tokens.get_vocab_size() > shape.vocabulary:
        raise ValueError(
            f"tokenizer: it has {tokens.get_vocab_size()} ids, more than the network's "
            f"in_channels {shape.vocabulary}"
        )
    outputs = max(len(classes), 1)
    if classifier.linear.out_features != outputs:
        raise ValueError(
            f"classes: expected {classifier.linear.out_features}, the outputs of the head, "
            f"got {outputs}"
        )
    tokens.no_padding()
    tokens.no_truncation()
    # A name that is no special token of the tokenizer is what texts may hold; padding never is.
    marked = {token.content for token in tokens.get_added_tokens_decoder().values()}
    special = {
        part: name
        for part, names in _SPECIAL.items()
        for name in names
        if name in marked or (part == "pad_token" and tokens.token_to_id(name) is not None)
    }
    pad = tokens.token_to_id(special["pad_token"]) if "pad_token" in special else None
    kind = _kind(classifier, shape, pad)
    state, shape = _state(network, classifier, kind, shape)
    if not classes:
        state = _mapped(state, FAMILIES[kind].classifier, scale, shift)
    config = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        **config_of(shape, kind),
        **_dropouts(network, classifier, kind),
        "pad_token_id": pad,
        "problem_type": _problem(classes, multilabel),
        "id2label": {str(i): name for i, name in enumerate(classes or ("LABEL_0",))},
        "label2id": {name: i for i, name in enumerate(classes or ("LABEL_0",))},
        "dtype": "float32",
    }
    types = ["token_type_ids"] if shape.types > 1 else []
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": min(max_length, shape.length),
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "truncation_side": _SIDES[truncation],
        "padding_side": "right",
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    library("safetensors.torch", _TEXT).save_file(
        state, folder / "model.safetensors", metadata={"format": "pt"}
    )
    _write(folder / "config.json", config)
    _write(folder / "tokenizer_config.json", tokenizer_config)
    (folder / "tokenizer.json").write_text(tokens.to_str(pretty=True), encoding="utf-8")
    said = f"a {kind} of {shape}, with {outputs} {'outputs' if outputs > 1 else 'output'}"
    if truncation == "both":
        said += "; pipelines cannot keep both ends of a long text, this one keeps its head"
    return said


def _expressible(backbone: nn.Module, head: nn.Module) -> tuple[ResidualEncoder, FirstTokenHead]:
    """Backbone and head, if transformers has such a classifier.

    Raises:
        ValueError: it has none, with all reasons.
    """
    reasons = []
    if isinstance(backbone, ResidualEncoder):
        reasons += reasons_against(backbone)
    else:
        reasons.append(f"backbone {type(backbone).__name__} (theirs is ResidualEncoder)")
    pooler = getattr(head, "pooler", None)
    if not isinstance(head, FirstTokenHead):
        reasons.append(f"head {type(head).__name__} (theirs is FirstTokenHead)")
    elif type(pooler) not in (TanhPooler, ReluPooler):
        reasons.append(
            f"pooler {type(pooler).__name__} (BERT's is TanhPooler, DistilBERT's ReluPooler)"
        )
    elif type(pooler) is ReluPooler and isinstance(backbone, ResidualEncoder) and not reasons:
        shape = shape_of(backbone)
        if shape.types:
            reasons.append("token types with ReluPooler (DistilBERT has none; take TanhPooler)")
        if shape.eps != DISTILLED_EPS:
            reasons.append(
                f"eps {shape.eps} with ReluPooler (DistilBERT's is {DISTILLED_EPS}; take "
                f"TanhPooler)"
            )
    if reasons:
        raise ValueError(
            f"transformers has no text classifier like this network: {'; '.join(reasons)}"
        )
    assert isinstance(backbone, ResidualEncoder)
    assert isinstance(head, FirstTokenHead)
    return backbone, head


def _kind(head: FirstTokenHead, shape: EncoderShape, pad: int | None) -> str:
    if isinstance(head.pooler, ReluPooler):
        return "distilbert"
    # RoBERTa begins to count at the id behind the padding's.
    return "roberta" if shape.offset and pad == shape.offset - 1 else "bert"


def _state(
    network: ResidualEncoder, head: FirstTokenHead, kind: str, shape: EncoderShape
) -> tuple[dict[str, Tensor], EncoderShape]:
    """The state under transformers' keys, and its shape: it may have rows that ours lacks."""
    family = FAMILIES[kind]
    names = names_of_family(network, family)
    ours = network.state_dict()
    state: dict[str, Tensor] = {}
    for key, theirs in names.keys.items():
        assert theirs is not None  # `_expressible` let pass only what has a name
        for name, part in zip(theirs, ours[key].chunk(len(theirs)), strict=True):
            state[family.prefix + name] = part
    numbers = dict(shape.__dict__)
    if kind != "roberta" and shape.offset:
        # The rows that are never read.
        state[family.prefix + _POSITIONS] = state[family.prefix + _POSITIONS][shape.offset :]
        numbers["offset"] = 0
    if kind != "distilbert" and not shape.types:
        state[family.prefix + _TYPES] = torch.zeros(1, shape.width)
        numbers["types"] = 1
    of_head = linear("pooler.linear", family.pooler) | linear("linear", family.classifier)
    for key, value in head.state_dict().items():
        state[of_head[key]] = value
    kept = {
        name: value.detach().float().cpu().clone().contiguous() for name, value in state.items()
    }
    return kept, EncoderShape(**numbers)


def _mapped(
    state: dict[str, Tensor], classifier: str, scale: float, shift: float
) -> dict[str, Tensor]:
    """The state of ``scale y + shift`` for the output ``y``."""
    weight, bias = f"{classifier}.weight", f"{classifier}.bias"
    return state | {weight: state[weight] * scale, bias: state[bias] * scale + shift}


def _dropouts(network: ResidualEncoder, head: Head, kind: str) -> dict[str, float]:
    attention = next(m for m in network.modules() if isinstance(m, SelfAttention))
    inside, scores, last = attention.dropout.p, attention.attention_dropout, head.dropout.p
    if kind == "distilbert":
        return {"dropout": inside, "attention_dropout": scores, "seq_classif_dropout": last}
    return {
        "hidden_dropout_prob": inside,
        "attention_probs_dropout_prob": scores,
        "classifier_dropout": last,
    }


def _problem(classes: Sequence[str], multilabel: bool) -> str:
    if not classes:
        return "regression"
    return "multi_label_classification" if multilabel else "single_label_classification"


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
