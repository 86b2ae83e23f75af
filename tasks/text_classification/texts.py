"""Texts as they were read."""

from dataclasses import dataclass, field

from resdomains.schema import Split


@dataclass
class Texts:
    """Texts with their targets, column by column.

    Args:
        texts: The text of each sample.
        pairs: The second text of each sample, where items are two texts.
        targets: The class name, the names of all its labels, or a number, of each sample.
        sources: Where each sample stands, such as `reviews.csv:12`, for messages and tables.

    Raises:
        ValueError: If the columns differ in length.
    """

    texts: list[str]
    pairs: list[str] | None
    targets: list[str] | list[list[str]] | list[float]
    sources: list[str]

    def __post_init__(self) -> None:
        lengths = {
            "texts": len(self.texts),
            "targets": len(self.targets),
            "sources": len(self.sources),
        }
        if self.pairs is not None:
            lengths["pairs"] = len(self.pairs)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns must be equally long, got {lengths}")

    def __len__(self) -> int:
        return len(self.texts)


@dataclass
class Corpus:
    """All splits of a data set of texts.

    Args:
        splits: `train`, and `val` and `test` where the data have them.
        classes: Class names in their order; the sorted names of the training split if None.
        text_column: The column that held the text, for tables to predict.
        pair_column: The column that held the second text.
        notes: What was guessed, cut or left out: a sentence each.
    """

    splits: dict[Split, Texts]
    classes: list[str] | None = None
    text_column: str | None = None
    pair_column: str | None = None
    notes: list[str] = field(default_factory=list)
