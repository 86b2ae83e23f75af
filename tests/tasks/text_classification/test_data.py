"""What every data module of texts does: batches, targets, the description, what it says of what it cut."""

from typing import Any

import pytest

from resdomains.training import BadSample
from resdomains_tasks.text_classification import Corpus, TextData, Texts, TextSpec, TokenDropout

from .support import LEXICON, Opinions, Words


class Given(TextData):
    """The corpus that it is given."""

    def __init__(self, corpus: Corpus, **options: Any) -> None:
        super().__init__(**{"batch_size": 2, "tokens": Words(), **options})
        self.corpus = corpus

    def read(self) -> Corpus:
        return self.corpus


def texts(targets: list[Any], said: list[str] | None = None, pairs: Any = None) -> Texts:
    said = said or ["good film", "bad", "very long plot ."][: len(targets)]
    return Texts(said, pairs, targets, [f"t.csv:{line}" for line in range(2, len(said) + 2)])


def given(train: Texts, classes: list[str] | None = None, **splits: Texts) -> Given:
    return Given(Corpus({"train": train, **splits}, classes=classes))  # type: ignore[dict-item]


def test_a_batch_holds_each_text_up_to_its_length_and_zeros_behind() -> None:
    data = given(texts(["b", "a", "b"]))
    data.ready()
    batch = data.ready_dataset("train").__getitems__([2, 1])  # type: ignore[attr-defined]
    very, bad = [LEXICON.index(w) for w in ["very", "long", "plot", "."]], LEXICON.index("bad")
    assert batch["ids"].tolist() == [very, [bad, 0, 0, 0]]
    assert batch["lengths"].tolist() == [4, 1]
    assert batch["target"].tolist() == [1, 0]
    assert batch["index"].tolist() == [2, 1]


def test_pairs_say_which_text_a_token_is_from() -> None:
    data = given(texts(["a", "b"], pairs=["long", "not short film"]))
    data.ready()
    batch = data.ready_dataset("train").__getitems__([0, 1])  # type: ignore[attr-defined]
    assert batch["ids"].shape == (2, 2, 4)
    assert batch["ids"][:, 1].tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]
    assert data.text_spec.pair


def test_classes_are_the_sorted_names_or_in_the_order_given() -> None:
    assert given(texts(["b", "a", "b"])).text_spec.classes == ["a", "b"]
    ordered = given(texts(["b", "a", "b"]), classes=["b", "a", "c"])
    assert ordered.text_spec.classes == ["b", "a", "c"]
    assert ordered.text_spec.prevalence == pytest.approx([2 / 3, 1 / 3, 0.0])


def test_several_labels_become_one_hot_each_and_none_is_allowed() -> None:
    data = given(texts([["x"], [], ["y", "x"]]))
    assert data.text_spec.multilabel
    batch = data.ready_dataset("train").__getitems__([0, 1, 2])  # type: ignore[attr-defined]
    assert batch["target"].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert data.text_spec.prevalence == pytest.approx([2 / 3, 1 / 3])


def test_numbers_are_described_by_their_mean_and_spread() -> None:
    spec = given(texts([1.0, 3.0, 8.0])).text_spec
    assert spec.numeric
    assert spec.outputs == 1
    assert (spec.mean, spec.std) == pytest.approx((4.0, (26 / 3) ** 0.5))


def test_a_label_that_training_lacks_is_named_with_its_line() -> None:
    data = given(texts(["a", "b"]), test=texts(["a", "c"]))
    with pytest.raises(
        BadSample, match=r"t\.csv:3: label 'c' is not one of the training split's: a, b"
    ):
        data.ready()


def test_texts_that_are_cut_are_counted_by_split() -> None:
    data = Given(
        Corpus({"train": texts(["a", "b", "a"]), "val": texts(["a", "b"])}),
        max_length=2,
        truncation="both",
    )
    (note,) = data.notes
    assert "more than 2 tokens are cut, both ends kept: 1 of 3 in train (" in note
    (cut,) = data.ready_dataset("train").__getitems__([2])["ids"].tolist()  # type: ignore[attr-defined]
    assert cut == [LEXICON.index("very"), LEXICON.index(".")]


def test_texts_in_which_nothing_is_found_are_named() -> None:
    data = given(texts(["a", "b"], said=["good", " \t "]))
    (note,) = data.notes
    assert "1 texts hold nothing that Words reads and are one unknown token: t.csv:3" in note
    assert data.ready_dataset("train").__getitems__([1])["lengths"].tolist() == [1]  # type: ignore[attr-defined]


def test_the_description_is_plain_and_rebuilds_itself() -> None:
    spec = Opinions().spec
    assert TextSpec.of(spec).plain() == spec
    with pytest.raises(ValueError, match="it lacks tokenizer; it has the unknown colour"):
        TextSpec.of({**{k: v for k, v in spec.items() if k != "tokenizer"}, "colour": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [], "multilabel": True}, "classes must be named"),
        ({"classes": [], "prevalence": [], "std": 0.0}, "are all targets equal"),
        ({"truncation": "middle"}, "truncation must be one of head, tail, both, got 'middle'"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"classes": ["a"], "prevalence": [1.0]}, "at least 2 classes"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextSpec.of({**Opinions().spec, **changes})


def test_batches_hold_texts_of_like_length() -> None:
    data = Opinions(batch_size=8)
    for batch in data.train_dataloader():
        lengths = batch["lengths"]
        assert int(lengths.max()) - int(lengths.min()) <= 3
        assert batch["ids"].shape == (len(lengths), int(lengths.max()))


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="columns must be equally long"):
        Texts(["a", "b"], None, ["x"], ["1", "2"])


def test_training_batches_are_augmented_alike_whatever_their_padding() -> None:
    data = Opinions(augment=[TokenDropout(0.3, replacement=0), TokenDropout(0.2)])
    dataset: Any = data.ready_dataset("train")
    short = int(dataset.lengths.argmin())
    together = data.transform(dataset.__getitems__([short, int(dataset.lengths.argmax())]), "train")
    alone = data.transform(dataset.__getitems__([short]), "train")
    length = alone["ids"].shape[1]
    assert alone["ids"].equal(together["ids"][:1, :length])
    batch = dataset.__getitems__(list(range(64)))
    assert not data.transform(batch, "train")["ids"].equal(batch["ids"])
    assert data.transform(batch, "val")["ids"].equal(batch["ids"])
