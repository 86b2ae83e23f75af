"""Small texts, tokens and tasks that several tests use."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from resdomains.core import ResidualEncoder, TokenStem
from resdomains_tasks.text_classification.augment import Augment
from resdomains_tasks.text_classification.data import TextData
from resdomains_tasks.text_classification.spec import TextSpec
from resdomains_tasks.text_classification.task import TextClassification
from resdomains_tasks.text_classification.texts import Corpus, Texts
from resdomains_tasks.text_classification.tokens import Tokens

LEXICON = ["?", "good", "bad", "film", "plot", "very", "not", "long", "short", "."]


def words() -> Tokenizer:
    """Ten words; in pairs the second text's are of type 1."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(LEXICON)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0", pair="$A:0 $B:1", special_tokens=[]
    )
    return tokenizer


class Words(Tokens):
    """The ten words, whatever the training texts."""

    vocabulary = len(LEXICON)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        return words()


def small_spec(**changes: Any) -> TextSpec:
    values: dict[str, Any] = {
        "classes": ["neg", "pos"],
        "prevalence": [0.25, 0.75],
        "tokenizer": words().to_str(),
        "vocabulary": len(LEXICON),
        "max_length": 6,
        "text_column": "text",
    }
    return TextSpec(**{**values, **changes})


LABELLED = small_spec(classes=["a", "b", "c"], multilabel=True, prevalence=[0.2, 0.4, 0.6])
NUMERIC = small_spec(classes=[], prevalence=[], mean=3.0, std=2.0)
PAIRED = small_spec(pair=True, pair_column="other")


def small_task(spec: TextSpec | None = None, **options: Any) -> TextClassification:
    spec = spec or small_spec()
    torch.manual_seed(0)

    def stem(place: Any) -> TokenStem:
        return TokenStem(place, length=16, types=2 if spec.pair else 0)

    backbone = ResidualEncoder(layers=1, width=16, in_channels=spec.vocabulary, stem=stem)
    return TextClassification(backbone=backbone, spec=spec.plain(), **options)


class Opinions(TextData):
    """Texts that say `good` or `bad` among other words, or how many words they have."""

    def __init__(
        self,
        *,
        batch_size: int = 8,
        tokens: Tokens | None = None,
        max_length: int = 16,
        truncation: Literal["head", "tail", "both"] = "head",
        augment: list[Augment] | None = None,
        kind: str = "class",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            tokens=tokens or Words(),
            max_length=max_length,
            truncation=truncation,
            augment=augment,
            num_workers=num_workers,
            seed=seed,
        )
        self.kind = kind

    def read(self) -> Corpus:
        splits: Any = {"train": self._split(64, 0), "val": self._split(33, 1)}
        return Corpus({**splits, "test": self._split(33, 2)}, text_column="text")

    def _split(self, count: int, seed: int) -> Texts:
        generator = torch.Generator().manual_seed(seed)
        texts, targets = [], []
        for _ in range(count):
            length = int(torch.randint(1, 12, (), generator=generator))
            numbers = torch.randint(3, len(LEXICON), (length,), generator=generator).tolist()
            good, bad = (torch.rand(2, generator=generator) < 0.4).tolist()
            said = [LEXICON[n] for n in numbers] + ["good"] * good + ["bad"] * bad
            texts.append(" ".join(said))
            names = ["good"] * good + ["bad"] * bad
            of_class = "praise" if good and not bad else "other"
            targets.append({"class": of_class, "labels": names, "number": float(length)}[self.kind])
        sources = [f"opinions.csv:{line}" for line in range(2, count + 2)]
        return Texts(texts, None, targets, sources)  # type: ignore[arg-type]
