"""Residual networks over sequences by their published names.

Each takes ``EncoderOptions`` by keyword and has the published parts as defaults. ``dropout`` is the
published one at all its published places. Weights start Xavier-normal, which DeepNorm assumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict, Unpack

from resdomains.core.activations import Activation, SiLU
from resdomains.core.branches.attention import SelfAttention
from resdomains.core.branches.conformer import ConvolutionModule
from resdomains.core.branches.feedforward import FeedForward
from resdomains.core.branches.sequence import SequenceBranch
from resdomains.core.coupling import Coupling
from resdomains.core.memory import Memory
from resdomains.core.merges import Add, Merge
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.core.norm_positions import ConformerNorm, NormPosition, PostNorm
from resdomains.core.norms import LayerNorm, Norm
from resdomains.core.place import Place, SequencePlace, Site
from resdomains.core.positions import LearnedPositions, RelativePositions
from resdomains.core.sequence_stems import PatchStem, SequenceStem, SubsamplingStem, TokenStem


class EncoderOptions(TypedDict, total=False):
    """What every named encoder takes; the meaning is that of ``ResidualEncoder``."""

    in_channels: int
    stem: Callable[[Place], SequenceStem]
    layer: Sequence[Callable[[SequencePlace], SequenceBranch]]
    norm_position: NormPosition | None
    merge: Callable[[Site], Merge]
    norm: Callable[[int], Norm]
    activation: Callable[[], Activation]
    coupling: Coupling | None
    memory: Memory | None


_LIVE = partial(Add, zero_init=False)  # none of them was published with branches that start at zero


def bert(
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    length: int = 512,
    types: int = 2,
    expansion: float = 4.0,
    dropout: float = 0.1,
    **options: Unpack[EncoderOptions],
) -> ResidualEncoder:
    """BERT of any size (Devlin et al. 2019): token types, norm after the sum, exact GELU.

    ``length`` is the number of positions, ``types`` of token types; the inner layers are
    ``expansion`` times as wide. The vocabulary, ``in_channels``, is that of the uncased models.
    """
    parts: EncoderOptions = {
        "in_channels": 30522,
        "stem": partial(TokenStem, length=length, types=types),
        "layer": (
            partial(SelfAttention, heads=heads, dropout=dropout, attention_dropout=dropout),
            partial(FeedForward, expansion=expansion, dropout=dropout),
        ),
        "norm_position": PostNorm(),
        "merge": _LIVE,
        "norm": partial(LayerNorm, eps=1e-12),
    }
    return ResidualEncoder(layers, width, dropout=dropout, **(parts | options))


def bert_tiny(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """BERT-tiny (Turc et al. 2019), uncased: 2 layers, 128 wide, 2 heads."""
    return bert(2, 128, 2, dropout=dropout, **options)


def bert_mini(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """BERT-mini (Turc et al. 2019), uncased: 4 layers, 256 wide, 4 heads."""
    return bert(4, 256, 4, dropout=dropout, **options)


def bert_small(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """BERT-small (Turc et al. 2019), uncased: 4 layers, 512 wide, 8 heads."""
    return bert(4, 512, 8, dropout=dropout, **options)


def bert_medium(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """BERT-medium (Turc et al. 2019), uncased: 8 layers, 512 wide, 8 heads."""
    return bert(8, 512, 8, dropout=dropout, **options)


def bert_base(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """BERT-base (Devlin et al. 2019), uncased: 12 layers, 768 wide, 12 heads."""
    return bert(12, 768, 12, dropout=dropout, **options)


def bert_large(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """BERT-large (Devlin et al. 2019), uncased: 24 layers, 1024 wide, 16 heads."""
    return bert(24, 1024, 16, dropout=dropout, **options)


def roberta(
    layers: int = 12,
    width: int = 768,
    heads: int = 12,
    length: int = 512,
    expansion: float = 4.0,
    dropout: float = 0.1,
    **options: Unpack[EncoderOptions],
) -> ResidualEncoder:
    """RoBERTa of any size (Liu et al. 2019): BERT with positions from 2, one token type, eps 1e-5.

    Arguments as of ``bert``; ``length`` counts the positions of texts, 512 where RoBERTa's table
    has 514 rows. CamemBERT and XLM-RoBERTa have other vocabularies.
    """
    parts: EncoderOptions = {
        "in_channels": 50265,
        "stem": partial(
            TokenStem, length=length, types=1, positions=partial(LearnedPositions, offset=2)
        ),
        "norm": partial(LayerNorm, eps=1e-5),
    }
    return bert(layers, width, heads, expansion=expansion, dropout=dropout, **(parts | options))


def roberta_base(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """RoBERTa-base (Liu et al. 2019): 12 layers, 768 wide, 12 heads."""
    return roberta(12, 768, 12, dropout=dropout, **options)


def roberta_large(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """RoBERTa-large (Liu et al. 2019): 24 layers, 1024 wide, 16 heads."""
    return roberta(24, 1024, 16, dropout=dropout, **options)


def distilroberta_base(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """DistilRoBERTa-base (Sanh et al. 2019): half the layers of RoBERTa-base."""
    return roberta(6, 768, 12, dropout=dropout, **options)


def distilbert_base(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """DistilBERT-base (Sanh et al. 2019), uncased: half of BERT-base's layers, no token types."""
    return bert(6, 768, 12, types=0, dropout=dropout, **options)


def conformer_small(dropout: float = 0.1, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """Conformer (S) over 80 mel bands (Gulati et al. 2020): 16 layers, 144 wide, 4 heads.

    8.7 M parameters; the paper's 10.3 M count the transducer's decoder.
    """
    half = partial(FeedForward, dropout=dropout, inner_dropout=dropout, scale=0.5)
    attention = partial(
        SelfAttention,
        heads=4,
        dropout=dropout,
        attention_dropout=dropout,
        positions=RelativePositions,
    )
    parts: EncoderOptions = {
        "in_channels": 80,
        "stem": SubsamplingStem,
        "layer": (half, attention, partial(ConvolutionModule, dropout=dropout), half),
        "norm_position": ConformerNorm(),
        "merge": _LIVE,
        "activation": SiLU,
    }
    return ResidualEncoder(16, 144, dropout=dropout, **(parts | options))


def vit_tiny(dropout: float = 0.0, **options: Unpack[EncoderOptions]) -> ResidualEncoder:
    """ViT-Ti/16 over images of 224 (Touvron et al. 2021): 12 layers, 192 wide, 3 heads."""
    parts: EncoderOptions = {
        "in_channels": 3,
        "stem": PatchStem,
        "layer": (
            partial(SelfAttention, heads=3, dropout=dropout, attention_dropout=dropout),
            partial(FeedForward, dropout=dropout, inner_dropout=dropout),
        ),
        "merge": _LIVE,
    }
    return ResidualEncoder(12, 192, dropout=dropout, **(parts | options))
