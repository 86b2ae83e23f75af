"""What other libraries call the parts of a ``ResidualEncoder``: BERT and RoBERTa, ViT."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from resdomains.core.branches.attention import SelfAttention
from resdomains.core.branches.feedforward import FeedForward
from resdomains.core.heads import FirstTokenHead
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.core.norm_positions import NormPosition, PostNorm, PreNorm
from resdomains.core.sequence_stems import PatchStem, SequenceStem, TokenStem
from resdomains.interop.names import LIBRARIES, Names

_BERT_STEM = {
    "stem.tokens": "embeddings.word_embeddings",
    "stem.types": "embeddings.token_type_embeddings",
    "stem.positions": "embeddings.position_embeddings",
    "start.norm": "embeddings.LayerNorm",
}
_BERT_LAYER = (
    {
        "branch.qkv": ("self.query", "self.key", "self.value"),
        "branch.out": ("output.dense",),
        "after.norm": ("output.LayerNorm",),
    },
    {
        "branch.expand": ("intermediate.dense",),
        "branch.project": ("output.dense",),
        "after.norm": ("output.LayerNorm",),
    },
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
    if library == "huggingface" and _like(network, TokenStem, PostNorm):
        return _hugging_face(network, state)
    if library == "timm" and _like(network, PatchStem, PreNorm):
        return _timm(network)
    if library not in LIBRARIES:
        raise ValueError(f"library: expected one of {', '.join(LIBRARIES)}, got {library!r}")
    raise ValueError(
        f"library: {library} has no encoders like this one (stem {type(network.stem).__name__}, "
        f"{type(network.norm_position).__name__}); huggingface has BERT and RoBERTa (TokenStem, "
        f"PostNorm), timm has ViT (PatchStem, PreNorm), with layers of self-attention and "
        f"feed-forward"
    )


def _like(network: ResidualEncoder, stem: type[SequenceStem], position: type[NormPosition]) -> bool:
    branches = (block.branch for _, block in network.blocks())
    kinds = [type(getattr(branch, "body", branch)) for branch in branches]
    return (
        isinstance(network.stem, stem)
        and isinstance(network.norm_position, position)
        and kinds == [SelfAttention, FeedForward] * network.depth
    )


def _hugging_face(network: ResidualEncoder, state: Mapping[str, Tensor]) -> Names:
    keys: dict[str, tuple[str, ...] | None] = {}
    for key in network.state_dict():
        owner, _, last = key.rpartition(".")
        words = owner.split(".")
        if words[0] == "stack":
            number, part = int(words[2]), ".".join(words[3:])
            theirs = _BERT_LAYER[number % 2].get(part)
            inner = "attention." if number % 2 == 0 else ""
            layer = f"encoder.layer.{number // 2}.{inner}"
            keys[key] = None if theirs is None else tuple(f"{layer}{t}.{last}" for t in theirs)
        else:
            keys[key] = (f"{_BERT_STEM[owner]}.{last}",) if owner in _BERT_STEM else None
    if "classifier.out_proj.weight" in state:  # RoBERTa's, whose inner layer is the task's
        head = _linear("linear", "classifier.out_proj") | _linear(
            "pooler.linear", "classifier.dense"
        )
        pooler: dict[str, str] = {}
    else:
        head, pooler = _linear("linear", "classifier"), _linear("pooler.linear", "pooler.dense")
    return Names(
        keys,
        head,
        pooler,
        FirstTokenHead,
        prefixes=("bert.", "roberta."),
        ignored=("cls.", "lm_head.", "embeddings.position_ids"),
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
    return Names(keys, _linear("linear", "head"), head_type=FirstTokenHead)


def _linear(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{last}": f"{theirs}.{last}" for last in ("weight", "bias")}
