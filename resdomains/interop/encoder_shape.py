"""The numbers of BERT and its kin: what a network has, what a config of transformers says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from resdomains.core.activations import GELU, Activation, ReLU, SiLU
from resdomains.core.branches.attention import SelfAttention
from resdomains.core.branches.feedforward import FeedForward
from resdomains.core.coupling import Plain
from resdomains.core.linear import Scale
from resdomains.core.merges import Add, DropPath, Merge
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.core.norm_positions import PostNorm
from resdomains.core.norms import LayerNorm, Norm
from resdomains.core.positions import LearnedPositions, PositionFree
from resdomains.core.sequence_stems import TokenStem

# transformers' model types that are computed alike, by the family that names their parts.
KINDS = {
    "bert": "bert",
    "roberta": "roberta",
    "camembert": "roberta",
    "xlm-roberta": "roberta",
    "electra": "electra",
    "distilbert": "distilbert",
}

ACTIVATIONS: dict[str, type[Activation]] = {"gelu": GELU, "relu": ReLU, "silu": SiLU}
_SAME = {"gelu_python": "gelu", "swish": "silu"}

# What transformers' configs call the numbers. DistilBERT's eps is fixed, and it has no token types.
_FIELDS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "vocabulary": "vocab_size",
    "types": "type_vocab_size",
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
}
_DISTILLED = {
    "layers": "n_layers",
    "width": "dim",
    "heads": "n_heads",
    "inner": "hidden_dim",
    "vocabulary": "vocab_size",
    "activation": "activation",
}
DISTILLED_EPS = 1e-12

_WORDS = {
    "layers": "layers",
    "width": "width",
    "heads": "heads",
    "inner": "inner width",
    "vocabulary": "vocabulary",
    "length": "positions",
    "offset": "offset of positions",
    "types": "token types",
    "activation": "activation",
    "eps": "eps of norms",
}

# The networks of resdomains.core that have a name: family, layers, width, heads, token types.
NAMED = {
    ("bert", 2, 128, 2, 2): "bert_tiny",
    ("bert", 4, 256, 4, 2): "bert_mini",
    ("bert", 4, 512, 8, 2): "bert_small",
    ("bert", 8, 512, 8, 2): "bert_medium",
    ("bert", 12, 768, 12, 2): "bert_base",
    ("bert", 24, 1024, 16, 2): "bert_large",
    ("bert", 6, 768, 12, 0): "distilbert_base",
    ("roberta", 12, 768, 12, 1): "roberta_base",
    ("roberta", 24, 1024, 16, 1): "roberta_large",
    ("roberta", 6, 768, 12, 1): "distilroberta_base",
}


@dataclass(frozen=True)
class EncoderShape:
    """All that decides what a BERT-shaped encoder computes, beside its weights.

    ``inner`` is the width inside feed-forward layers; ``length`` counts the positions that texts
    have, and ``offset`` the rows of the table before them; ``activation`` is transformers' name.
    """

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    length: int
    offset: int
    types: int
    activation: str
    eps: float

    def __str__(self) -> str:
        """Its numbers in words."""
        return (
            f"{self.layers} layers, width {self.width}, {self.heads} heads, inner width "
            f"{self.inner}, vocabulary {self.vocabulary}, {self.length} positions, {self.types} "
            f"token types"
        )


def reasons_against(network: ResidualEncoder) -> list[str]:
    """Why a network is none that BERT and its kin compute; empty if it is one."""
    return list(dict.fromkeys(_reasons(network)))


def _reasons(network: ResidualEncoder) -> Iterator[str]:
    stem, position = network.stem, network.norm_position
    if type(stem) is not TokenStem:
        yield f"stem {type(stem).__name__} (theirs is TokenStem)"
    elif type(stem.positions) is not LearnedPositions:
        yield f"positions {type(stem.positions).__name__} (theirs are LearnedPositions)"
    if type(position) is not PostNorm:
        yield f"norm_position {type(position).__name__} (theirs is PostNorm)"
    if type(network.stack.coupling) is not Plain:
        yield f"coupling {type(network.stack.coupling).__name__} (theirs is Plain)"
    for norm in _norms(network):
        if type(norm) is not LayerNorm:
            yield f"norm {type(norm).__name__} (theirs is LayerNorm)"
    branches = [getattr(block.branch, "body", block.branch) for _, block in network.blocks()]
    if [type(branch) for branch in branches] != [SelfAttention, FeedForward] * network.depth:
        yield "layers of other parts than SelfAttention and FeedForward"
    for branch in branches:
        if isinstance(branch, SelfAttention) and type(branch.positions) is not PositionFree:
            yield f"attention with {type(branch.positions).__name__} (theirs has none)"
        if isinstance(branch, FeedForward):
            if type(branch.act) not in ACTIVATIONS.values():
                yield f"activation {type(branch.act).__name__} (theirs are GELU, ReLU and SiLU)"
            if isinstance(scale := getattr(branch, "scale", None), Scale):
                yield f"a scale of {scale.factor} in FeedForward (theirs has none)"
    for _, block in network.blocks():
        if not _adds(block.merge):
            yield f"merge {type(block.merge).__name__} (theirs is Add)"


def _adds(merge: Merge) -> bool:
    """Whether a merge is a sum in evaluation."""
    return type(merge) is Add or (isinstance(merge, DropPath) and type(merge.merge) is Add)


def _norms(network: ResidualEncoder) -> list[Norm]:
    return [module for module in network.modules() if isinstance(module, Norm)]


def shape_of(network: ResidualEncoder) -> EncoderShape:
    """The shape of a network.

    Raises:
        ValueError: the network computes something else than BERT and its kin.
    """
    reasons = reasons_against(network)
    if reasons:
        raise ValueError(f"backbone: BERT and its kin are others: {'; '.join(reasons)}")
    stem = network.stem
    blocks = [block.branch for _, block in network.blocks()]
    attention, forward = blocks[0], blocks[1]
    # What `reasons_against` has made sure of.
    assert isinstance(stem, TokenStem)
    assert isinstance(stem.positions, LearnedPositions)
    assert isinstance(attention, SelfAttention)
    assert isinstance(forward, FeedForward)
    return EncoderShape(
        layers=network.depth,
        width=network.out_channels[0],
        heads=attention.heads,
        inner=forward.expand.out_features,  # type: ignore[union-attr, arg-type]  # a Linear
        vocabulary=network.in_channels,
        length=stem.positions.length,
        offset=stem.positions.offset,
        types=0 if stem.types is None else stem.types.num_embeddings,
        activation=next(k for k, v in ACTIVATIONS.items() if type(forward.act) is v),
        eps=_norms(network)[0].eps,
    )


def shape_of_config(config: Mapping[str, Any]) -> EncoderShape:
    """The shape of which transformers' config speaks, as ``config.to_dict()`` gives it.

    Raises:
        ValueError: the config asks for something that ``ResidualEncoder`` does not compute.
    """
    kind = config["model_type"]
    fields = _DISTILLED if kind == "distilbert" else _FIELDS
    numbers = {ours: config[theirs] for ours, theirs in fields.items()}
    activation = _SAME.get(str(numbers["activation"]), str(numbers["activation"]))
    reasons = []
    if activation not in ACTIVATIONS:
        reasons.append(
            f"{fields['activation']} is {activation!r}, and resdomains has {', '.join(ACTIVATIONS)}"
        )
    # Only some releases of transformers write it.
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        reasons.append(f"position_embedding_type is {positions!r}, and only 'absolute' is computed")
    if config.get("is_decoder"):
        reasons.append("is_decoder is true, and attention here reads both directions")
    inside = config.get("embedding_size", numbers["width"])
    if inside != numbers["width"]:
        reasons.append(
            f"embedding_size is {inside}, not the hidden_size {numbers['width']}: embeddings that "
            f"are mapped to the width are not computed"
        )
    if reasons:
        raise ValueError("; ".join(reasons))
    offset = (config["pad_token_id"] or 0) + 1 if KINDS[kind] == "roberta" else 0
    return EncoderShape(
        **{"types": 0, "eps": DISTILLED_EPS}
        | numbers
        | {
            "activation": activation,
            "offset": offset,
            "length": config["max_position_embeddings"] - offset,
        }
    )


def config_of(shape: EncoderShape, kind: str) -> dict[str, Any]:
    """The entries of transformers' config that say a shape: the inverse of ``shape_of_config``."""
    fields = _DISTILLED if kind == "distilbert" else _FIELDS
    numbers = asdict(shape)
    return {theirs: numbers[ours] for ours, theirs in fields.items()} | {
        "max_position_embeddings": shape.length + shape.offset
    }


def check_shape(network: ResidualEncoder, config: Mapping[str, Any], source: str) -> None:
    """Compares a network with the config of the weights that it shall be given.

    Raises:
        ValueError: it would compute something else than the source; the message says what to set.
    """
    kind = config["model_type"]
    try:
        theirs = shape_of_config(config)
    except ValueError as error:
        raise ValueError(
            f"source: {source} is a {kind} that resdomains does not compute: {error}"
        ) from error
    advice = f"set {options(theirs, kind)}"
    if reasons := reasons_against(network):
        raise ValueError(
            f"source: {source} is a {kind} of {theirs}; the backbone is none of its kind: "
            f"{'; '.join(reasons)}. For these weights {advice}"
        )
    wanted, got = asdict(theirs), asdict(shape_of(network))
    wrong = [
        f"{words} {got[name]} (the source has {wanted[name]})"
        for name, words in _WORDS.items()
        if got[name] != wanted[name]
    ]
    if wrong:
        raise ValueError(
            f"source: {source} is a {kind} of {theirs}; the backbone has {', '.join(wrong)}; "
            f"{advice}"
        )


def options(shape: EncoderShape, kind: str) -> str:
    """What to write on the command line for a backbone of that shape."""
    roberta = KINDS[kind] == "roberta"
    family = "roberta" if roberta else "bert"
    plain = {
        "length": 512,
        "types": 1 if roberta else 2,
        "expansion": 4.0,
    }
    numbers = {
        "length": shape.length,
        "types": shape.types,
        "expansion": shape.inner / shape.width,
    }
    named = NAMED.get((family, shape.layers, shape.width, shape.heads, shape.types))
    if named and numbers | {"types": 0} == plain | {"types": 0}:
        found: dict[str, object] = {}
    else:
        named = family
        found = {"layers": shape.layers, "width": shape.width, "heads": shape.heads}
        found |= {name: value for name, value in numbers.items() if value != plain[name]}
    if shape.vocabulary != (50265 if roberta else 30522):
        found["in_channels"] = shape.vocabulary
    if roberta and (shape.offset != 2 or shape.types != 1):
        # Only whole stems have these.
        found.pop("types", None)
        found.pop("length", None)
        found |= {
            "stem": "TokenStem",
            "stem.length": shape.length,
            "stem.types": shape.types,
            "stem.positions": "LearnedPositions",
            "stem.positions.offset": shape.offset,
        }
    if shape.eps != (1e-5 if roberta else 1e-12):
        found |= {"norm": "LayerNorm", "norm.eps": shape.eps}
    if shape.activation != "gelu":
        found["activation"] = ACTIVATIONS[shape.activation].__name__
    keys = "".join(f" --model.backbone.{name} {value}" for name, value in found.items())
    return f"--model.backbone {named}{keys}"
