"""Text classification: one class a text or a pair of texts, several labels, or a number."""

from .augment import Augment, TokenDropout
from .data import EncodedTexts, TextData
from .docstrings import Docstrings
from .files import TextFiles
from .losses import NumberLoss, SquaredError
from .spec import TextSpec
from .splits import HashSplit, RandomSplit
from .task import TextClassification
from .texts import Corpus, Texts
from .tokens import BytePairs, Bytes, Characters, Pretrained, Tokens, WordPiece

__all__ = [
    "Augment",
    "BytePairs",
    "Bytes",
    "Characters",
    "Corpus",
    "Docstrings",
    "EncodedTexts",
    "HashSplit",
    "NumberLoss",
    "Pretrained",
    "RandomSplit",
    "SquaredError",
    "TextClassification",
    "TextData",
    "TextFiles",
    "TextSpec",
    "Texts",
    "TokenDropout",
    "Tokens",
    "WordPiece",
]
