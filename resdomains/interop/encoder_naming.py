"""What other libraries call the parts of a ``ResidualEncoder``: BERT and its kin, ViT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from resdomains.core.branches.attention import SelfAttention
from resdomains.core.branches.feedforward import FeedForward
from resdomains.core.heads import FirstTokenHead, Pooler, ReluPooler, TanhPooler
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.core.norm_positions import PreNorm
from resdomains.core.sequence_stems import PatchStem
from resdomains.interop.encoder_shape import reasons_against
from resdomains.interop.names import LIBRARIES, Names


class Family(NamedTuple):
    """What transformers calls the parts of one family of models; read for loading and for writing.

    Keys of the body begin with ``prefix``, which files of a body alone lack. ``stem`` names the
    parts before the first layer, ``layer`` the number-th layer, ``blocks`` the parts of its two
    blocks; a fused map has several names. ``pooler`` and ``classifier`` are whole keys, without
    their last word.
    """

    prefix: str
    stem: Mapping[str, str]
    layer: str
    blocks: tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[str, ...]]]
    pooler: str
    classifier: str
    pooler_type: type[Pooler]


_STEM = {
    "stem.tokens": "embeddings.word_embeddings",
    "stem.types": "embeddings.token_type_embeddings",
    "stem.positions": "embeddings.position_embeddings",
    "start.norm": "embeddings.LayerNorm",
}
_BLOCKS = (
    {
        "branch.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "branch.out": ("attention.output.dense",),
        "after.norm": ("attention.output.LayerNorm",),
    },
    {
        "branch.expand": ("intermediate.dense",),
        "branch.project": ("output.dense",),
        "after.norm": ("output.LayerNorm",),
    },
)
_DISTILLED = (
    {
        "branch.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "branch.out": ("attention.out_lin",),
        "after.norm": ("sa_layer_norm",),
    },
    {
        "branch.expand": ("ffn.lin1",),
        "branch.project": ("ffn.lin2",),
        "after.norm": ("output_layer_norm",),
    },
)
_LAYER = "encoder.layer.{}."

FAMILIES = {
    "bert": Family("bert.", _STEM, _LAYER, _BLOCKS, "bert.pooler.dense", "classifier", TanhPooler),
    "roberta": Family(
        "roberta.", _STEM, _LAYER, _BLOCKS, "classifier.dense", "classifier.out_proj", TanhPooler
    ),
    # ELECTRA's classifier has a GELU where RoBERTa's has tanh: no pooler here computes it.
    "electra": Family(
        "electra.", _STEM, _LAYER, _BLOCKS, "classifier.dense", "classifier.out_proj", Pooler
    ),
    "distilbert": Family(
        "distilbert.",
        _STEM,
        "transformer.layer.{}.",
        _DISTILLED,
        "pre_classifier",
        "classifier",
        ReluPooler,
    ),
}

# Parts of models for other tasks, whose body is read.
_IGNORED = (
    *("cls.", "lm_head.", "qa_outputs.", "embeddings.position_ids"),
    *("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    *("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    # RoBERTa's files hold a pooler that it does not use.
    "pooler.",
)

_VIT_KEYS = {"stem.class_token": "cls_token", "stem.positions.weight": "pos_embed"}
_VIT_STEM = {"stem.project": "patch_embed.proj", "end.norm": "norm"}
_VIT_LAYER = (
    {"branch.norm": "norm1", "branch.body.qkv": "attn.qkv", "branch.body.out": "attn.proj"},
    {"branch.norm": "norm2", "branch.body.expand": "mlp.fc1", "branch.body.project": "mlp.fc2"},
)


def names_of_encoder(network: ResidualEncoder, library: str, state: Mapping[str, Tensor]) -> Names:
    """The names that ``library`` has for an encoder of this kind.

    Raises:
        ValueError: the library is unknown, or has no encoders of this kind.
    """
    if library == "huggingface":
        reasons = reasons_against(network)
        if reasons:
            raise ValueError(
                f"library: huggingface has no encoders like this one: {'; '.join(reasons)}"
            )
        return names_of_family(network, _family(state))
    if library == "timm" and _like_vit(network):
        return _timm(network)
    if library not in LIBRARIES:
        raise ValueError(f"library: expected one of {', '.join(LIBRARIES)}, got {library!r}")
    raise ValueError(
        f"library: {library} has no encoders like this one (stem {type(network.stem).__name__}, "
        f"{type(network.norm_position).__name__}); huggingface has BERT and its kin (TokenStem, "
        f"PostNorm), timm has ViT (PatchStem, PreNorm), with layers of self-attention and "
        f"feed-forward"
    )


def names_of_family(network: ResidualEncoder, family: Family) -> Names:
    """The keys of one of transformers' families, without its prefix."""
    keys: dict[str, tuple[str, ...] | None] = {}
    for key in network.state_dict():
        owner, _, last = key.rpartition(".")
        words = owner.split(".")
        if words[0] == "stack":
            number, part = int(words[2]), ".".join(words[3:])
            layer = family.layer.format(number // 2)
            theirs = family.blocks[number % 2].get(part)
            keys[key] = None if theirs is None else tuple(f"{layer}{t}.{last}" for t in theirs)
        else:
            keys[key] = (f"{family.stem[owner]}.{last}",) if owner in family.stem else None
    return Names(
        keys,
        linear("linear", family.classifier),
        linear("pooler.linear", family.pooler.removeprefix(family.prefix)),
        FirstTokenHead,
        family.pooler_type,
        prefixes=tuple(each.prefix for each in FAMILIES.values()),
        ignored=_IGNORED,
    )


def _family(state: Mapping[str, Tensor]) -> Family:
    """The family of a state, told by its keys; a body without prefix may be BERT's as RoBERTa's."""
    for family in FAMILIES.values():
        if any(key.removeprefix("module.").startswith(family.prefix) for key in state):
            return family
    attention = FAMILIES["distilbert"].layer.format(0)
    if any(key.removeprefix("module.").startswith(attention) for key in state):
        return FAMILIES["distilbert"]
    return FAMILIES["bert"]


def _like_vit(network: ResidualEncoder) -> bool:
    branches = (block.branch for _, block in network.blocks())
    kinds = [type(getattr(branch, "body", branch)) for branch in branches]
    return (
        isinstance(network.stem, PatchStem)
        and isinstance(network.norm_position, PreNorm)
        and kinds == [SelfAttention, FeedForward] * network.depth
    )


def _timm(network: ResidualEncoder) -> Names:
    keys: dict[str, tuple[str, ...] | None] = {}
    for key in network.state_dict():
        owner, _, last = key.rpartition(".")
        words = owner.split(".")
        name = _VIT_KEYS.get(key)
        if words[0] == "stack":
            number, part = int(words[2]), ".".join(words[3:])
            layer = f"blocks.{number // 2}."
            if (part, last) == ("merge", "scale"):
                name = f"{layer}ls{number % 2 + 1}.gamma"
            elif part in _VIT_LAYER[number % 2]:
                name = f"{layer}{_VIT_LAYER[number % 2][part]}.{last}"
        elif owner in _VIT_STEM:
            name = f"{_VIT_STEM[owner]}.{last}"
        keys[key] = None if name is None else (name,)
    return Names(keys, linear("linear", "head"), head_type=FirstTokenHead)


def linear(ours: str, theirs: str) -> dict[str, str]:
    """The keys of a linear map of ours, with theirs."""
    return {f"{ours}.{last}": f"{theirs}.{last}" for last in ("weight", "bias")}
