"""Text classification: a residual network over tokens, a head, and what is measured and shown."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torchmetrics import Metric

from resdomains.classification import (
    AveragePrecision,
    BinaryCrossEntropy,
    CalibrationError,
    Confusion,
    CrossEntropy,
    F1AtThreshold,
    F1Curve,
    Loss,
    MacroF1,
    Matthews,
    MeanAveragePrecision,
    Mistakes,
    Outcomes,
    Reliability,
    Surest,
    Threshold,
    TopK,
    WrongLabels,
    precision_recall_f1,
    ranking,
)
from resdomains.core import Features, Head, PooledHead, refusal
from resdomains.interop import Weights
from resdomains.interop.export import export_encoder
from resdomains.schema import Split
from resdomains.training import BadSample, Optimization, StepResult, Task

from .encoding import Encoder
from .inputs import read_inputs
from .losses import NumberLoss, SquaredError
from .metrics import (
    R2,
    LargestErrors,
    MeanAbsoluteError,
    Pairs,
    Pearson,
    RootMeanSquaredError,
    Spearman,
)
from .spec import TextSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOP = 5
_TOGETHER = 1024  # texts that are encoded at once, so that large inputs are read as they are used

_warn = rank_zero_only(logging.getLogger(__name__).warning)


class TextClassification(Task):
    """Name the class of a text or of a pair of texts, each of its labels, or a number.

    The score is top-1 accuracy, and the score of guessing the share of the most frequent training class. For texts
    with several labels it is the mean average precision, of which guessing gets the mean share of texts that have a
    label; for numbers it is R^2, floored at 0, of which guessing gets 0.

    Of two classes, F1, average precision and a threshold on the probability are measured for the rarer one, in
    training, the second of equals; of several labels, F1 is the mean over labels at one threshold. The threshold of
    the highest F1 on the last validation is kept in the checkpoint: the test measures with it, and `predict` names
    the labels that reach it.

    Args:
        backbone: A network over ids (B, T), or for pairs (B, 2, T) with each token's text, that returns `Features`.
        spec: What a text data module says of its texts.
        loss: What is minimised; if not given cross-entropy, binary cross-entropy for several labels, the squared
            error for numbers.
        head: What maps the deepest features to outputs; called with their channels and the number of outputs.
        weights: Weights to begin with, of another library or an earlier run; where classes differ the head is new.
        optimization: Optimizer, rate and schedule.

    Raises:
        ValueError: If spec, backbone and loss do not fit each other.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        spec: dict[str, Any],
        loss: Loss | NumberLoss | None = None,
        head: Callable[[int, int], Head] = PooledHead,
        weights: Weights | None = None,
        optimization: Optimization | None = None,
    ) -> None:
        super().__init__(backbone=backbone, spec=spec, optimization=optimization)
        self.text_spec = TextSpec.of(spec)
        out_channels = _check(backbone, self.text_spec)
        self.check_reads(
            torch.zeros(1, 1, dtype=torch.long),
            "token ids",
            "take a network with a stem for tokens: TokenStem, CharacterStem, NGramStem or WordNGramStem",
        )
        typed = torch.zeros(1, 2, 1, dtype=torch.long)
        self._typed = not self.text_spec.pair or refusal(backbone, typed) is None
        self.loss = _bound(loss, self.text_spec)
        self.head = head(out_channels, self.text_spec.outputs)
        self.begin_with(weights, self.head, self.text_spec)
        self.encoder = Encoder(
            self.text_spec.tokenizer, self.text_spec.max_length, self.text_spec.truncation
        )
        if self.encoder.vocabulary > self.text_spec.vocabulary:
            raise ValueError(
                f"spec: its tokenizer has {self.encoder.vocabulary} ids, its vocabulary {self.text_spec.vocabulary}"
            )
        self.rarer = _rarer(self.text_spec)
        """Of two classes the number of the rarer; None for other data."""
        self.to(memory_format=torch.channels_last)
        self.build_all_metrics()

    @property
    def thresholded(self) -> bool:
        """Whether a threshold on probabilities is chosen on the validation split."""
        return self.text_spec.multilabel or self.rarer is not None

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return (B, outputs) of ids (B, T) or (B, 2, T), of which lengths (B,) count."""
        return cast(Tensor, self.head(self._features(ids, lengths)))

    def _features(self, ids: Tensor, lengths: Tensor) -> Features:
        # To a stem without types, only what stands between the texts of a pair tells them apart.
        features: Features = self.backbone(ids if self._typed else ids[:, 0], lengths)
        return features

    def embed(self, batch: Mapping[str, Any]) -> Tensor:
        """Return (B, D), what the head's linear map reads: by default the last features, averaged over the tokens."""
        return self.head.embed(self._features(batch["ids"], batch["lengths"]))

    def build_metrics(self) -> dict[str, Metric]:
        """Return what is measured of classes, of two classes, of labels, or of numbers."""
        spec = self.text_spec
        count = len(spec.classes)
        if spec.numeric:
            return {
                "r2": R2(),
                "mae": MeanAbsoluteError(),
                "rmse": RootMeanSquaredError(),
                "pearson": Pearson(),
                "spearman": Spearman(),
                "pairs": Pairs(),
                "mistakes": LargestErrors(),
            }
        if spec.multilabel:
            return {
                "map": MeanAveragePrecision(count),
                "f1": MacroF1(count),
                **_over_threshold(count),
                "average_precision": AveragePrecision(count),
                "outcomes": Outcomes(count),
                "mistakes": WrongLabels(),
            }
        of_two = {
            "f1_rarer": MacroF1(1),
            "average_precision_rarer": MeanAveragePrecision(1),
            **_over_threshold(1),
        }
        return {
            "top1": TopK(1),
            **({"top5": TopK(_TOP)} if count > _TOP else {}),
            "f1": MacroF1(count),
            "matthews": Matthews(count),
            "calibration_error": CalibrationError(),
            **({} if self.rarer is None else of_two),
            "reliability": Reliability(),
            "confusion": Confusion(count),
            "outcomes": Outcomes(count),
            "mistakes": Mistakes(),
        }

    def step(self, batch: Any, split: Split) -> StepResult:
        """Compute the loss of a batch and measure it."""
        outputs, targets = self(batch["ids"], batch["lengths"]), batch["target"]
        loss = self.loss(outputs, targets)
        if split != "train":
            answers = self._answers(outputs.detach())
            for name, metric in self.metrics_of(split).items():
                if isinstance(metric, Surest):
                    metric.update(answers, targets, batch["index"])
                elif self.rarer is not None and name in _OF_RARER:
                    of_rarer = answers[:, self.rarer, None], (targets == self.rarer)[:, None]
                    metric.update(of_rarer[0], of_rarer[1].long())
                else:
                    metric.update(answers, targets)
        return StepResult(loss, len(targets))

    def _answers(self, outputs: Tensor) -> Tensor:
        """Return (B, K) probabilities, or (B,) numbers."""
        if isinstance(self.loss, NumberLoss):
            return self.loss.numbers(outputs)
        return self.loss.probabilities(outputs)

    @property
    def threshold(self) -> float:
        """The probability from which a label counts: that of the highest F1 on the validation split."""
        return self.chosen.get("threshold", 0.5)

    def choose(self, results: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the threshold of the highest F1."""
        return {"threshold": float(results["threshold"])} if self.thresholded else {}

    def on_test_epoch_start(self) -> None:
        """Let the test measure at the threshold that validation chose."""
        super().on_test_epoch_start()
        for metric in self.metrics_of("test").values():
            if isinstance(metric, Threshold):
                metric.fixed = torch.tensor(self.threshold, device=self.device)

    def score(self, results: Mapping[str, Tensor]) -> Tensor:
        """Return top-1 accuracy, for several labels mean average precision, for numbers R^2 or 0."""
        if self.text_spec.numeric:
            return results["r2"].clamp(min=0.0)
        return results["map" if self.text_spec.multilabel else "top1"]

    @staticmethod
    def chance(spec: Mapping[str, Any]) -> float | None:
        """Return the share of the most frequent class; for labels their mean share; for numbers 0.

        The most frequent class is what a guess without reading names: 1 / classes where they are balanced. None where
        the training texts are all of one class, so that nothing is left to learn.
        """
        text_spec = TextSpec.of(spec)
        if text_spec.numeric:
            return 0.0
        shares = text_spec.prevalence or [1.0 / len(text_spec.classes)]
        chance = sum(shares) / len(shares) if text_spec.multilabel else max(shares)
        return chance if chance < 1.0 else None

    def read(self, inputs: Sequence[str]) -> Iterator[dict[str, Any] | BadSample]:
        """Yield the texts that are given, encoded as in evaluation; a `BadSample` where one cannot be used.

        An input is a text itself, a table (CSV, TSV, JSON lines, Parquet, a text a line), a folder of tables, or `-`:
        standard input, a text a line. Pairs are JSON lists of two texts. An item is `{"ids": (T,) or (2, T), "text":
        str, "source": where it stands}`, for pairs with `pair`, the second text.
        """
        spec = self.text_spec
        found = read_inputs(inputs, spec)
        total = cut = 0
        while taken := list(islice(found, _TOGETHER)):
            good = [item for item in taken if not isinstance(item, BadSample)]
            pairs = [str(pair) for _, pair, _ in good] if spec.pair else None
            encoded = self.encoder.encode([text for text, _, _ in good], pairs)
            total, cut = total + len(good), cut + encoded.cut
            place = 0
            for item in taken:
                if isinstance(item, BadSample):
                    yield item
                    continue
                text, pair, source = item
                ids = encoded.padded(torch.tensor([place]))["ids"][0]
                second = {"pair": pair} if spec.pair else {}
                yield {"ids": ids, "source": source, "text": text, **second}
                place += 1
        if cut:
            kept = "both ends" if spec.truncation == "both" else f"the {spec.truncation}"
            _warn(
                f"{cut:,} of {total:,} texts were cut to {spec.max_length} tokens ({kept} kept), "
                "as in training"
            )

    def size(self, item: Any) -> int:
        """Return a text's tokens."""
        return int(item["ids"].shape[-1])

    def collate(self, items: Sequence[Any]) -> dict[str, Any]:
        """Make a batch of what `read` yields, as long as its longest text."""
        lengths = torch.tensor([item["ids"].shape[-1] for item in items])
        first = items[0]["ids"]
        ids = first.new_zeros(len(items), *first.shape[:-1], int(lengths.max()))
        for row, item in zip(ids, items, strict=True):
            row[..., : item["ids"].shape[-1]] = item["ids"]
        names = [name for name in ("source", "text", "pair") if name in items[0]]
        return {
            "ids": ids.long(),
            "lengths": lengths,
            **{name: [item[name] for item in items] for name in names},
        }

    exports: ClassVar[Sequence[str]] = ("huggingface",)

    def export(self, folder: Path, format: str) -> str:
        """Write the network for another library into an empty folder, and return in words what was written.

        Args:
            folder: Where to.
            format: `huggingface`, a folder for transformers' pipelines.

        Raises:
            ValueError: If the format cannot express the network.
        """
        spec = self.text_spec
        return export_encoder(
            self.backbone,
            self.head,
            tokenizer=spec.tokenizer,
            classes=spec.classes,
            multilabel=spec.multilabel,
            max_length=spec.max_length,
            folder=folder,
            truncation=spec.truncation,
            scale=spec.std if spec.numeric else 1.0,
            shift=spec.mean if spec.numeric else 0.0,
        )

    @torch.no_grad()
    def predict(self, batch: Any) -> list[dict[str, Any]]:
        """Return a record for each text.

        `source`, `text` (and `pair`), `label`, `probability`, and `top`, up to five (label, probability) pairs. Of two
        classes `label_at_threshold` says which it is at the threshold of the highest F1. For several labels `labels`
        holds all pairs that reach that threshold, in place of `label` and `probability`; for numbers there is `value`
        alone.
        """
        answers = self._answers(self(batch["ids"], batch["lengths"]))
        if "source" in batch:
            names = [name for name in ("source", "text", "pair") if name in batch]
            columns = [batch[name] for name in names]
            known = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        else:
            known = [{"source": f"sample {i}"} for i in batch["index"].tolist()]
        if self.text_spec.numeric:
            values = answers.tolist()
            return [{**it, "value": value} for it, value in zip(known, values, strict=True)]
        # The comparison is the metric's, in float32: a list's numbers would be compared in float64.
        reached = answers >= self.threshold if self.thresholded else answers >= 0.5
        rows = zip(known, answers.tolist(), reached.tolist(), strict=True)
        return [{**it, **self._named(row, over)} for it, row, over in rows]

    def _named(self, probabilities: list[float], reached: list[bool]) -> dict[str, Any]:
        """Return what a record says of one text."""
        classes = self.text_spec.classes
        ranked = ranking(probabilities, classes, len(classes))
        if self.text_spec.multilabel:
            named = {classes[k] for k, over in enumerate(reached) if over}
            answer: dict[str, Any] = {"labels": [pair for pair in ranked if pair[0] in named]}
        else:
            answer = {"label": ranked[0][0], "probability": ranked[0][1]}
            if self.rarer is not None:
                which = self.rarer if reached[self.rarer] else 1 - self.rarer
                answer["label_at_threshold"] = classes[which]
        return {**answer, "top": ranked[:_TOP]}

    def tables(
        self, split: Split, results: Mapping[str, Tensor]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the most confident mistakes or the largest errors, and precision, recall and F1 by class."""
        found = {"mistakes": self._mistakes(split, results["mistakes"])}
        if self.text_spec.numeric:
            return found
        outcomes = results["outcomes"].cpu()
        columns = (*precision_recall_f1(outcomes).tolist(), (outcomes[0] + outcomes[2]).tolist())
        found["classes"] = [
            {"class": name, "precision": p, "recall": r, "f1": f1, "support": support}
            for name, p, r, f1, support in zip(self.text_spec.classes, *columns, strict=True)
        ]
        return found

    def _mistakes(self, split: Split, rows: Tensor) -> list[dict[str, Any]]:
        spec = self.text_spec
        found = []
        for first, second, third, index in rows.tolist():
            if spec.numeric:
                said: dict[str, Any] = {"true": second, "predicted": third, "error": first}
            elif spec.multilabel:
                name, has = spec.classes[int(second)], third > 0.5
                said = {
                    "true": name if has else f"not {name}",
                    "predicted": f"not {name}" if has else name,
                    "confidence": first,
                }
            else:
                said = {
                    "true": spec.classes[int(second)],
                    "predicted": spec.classes[int(third)],
                    "confidence": first,
                }
            about = self.describe(split, int(index))
            found.append({**said, "source": f"sample {int(index)}", **about})
        return found

    def figures(self, split: Split, results: Mapping[str, Tensor]) -> "dict[str, Figure]":
        """Return what is confused, how well each class is told, the mistakes, calibration and F1 over threshold."""
        # Imported here: matplotlib takes half a second, for which only a figure should wait.
        from resdomains.classification import figures

        from .figures import mistakes, predicted_against_true

        spec = self.text_spec
        title = f"{_NAMES.get(split, split)}: {_measured(results, spec)}"
        cpu = {name: value.cpu() for name, value in results.items()}
        drawn: dict[str, Figure] = {}
        if spec.numeric:
            drawn["predicted_against_true"] = predicted_against_true(cpu["pairs"], title)
        else:
            drawn["classes"] = figures.per_class(cpu["outcomes"], spec.classes, title)
        if spec.multilabel:
            drawn["average_precision"] = figures.average_precision(
                cpu["average_precision"], spec, title
            )
        elif not spec.numeric:
            drawn["confusion"] = figures.confusion(cpu["confusion"], spec.classes, title)
            drawn["reliability"] = figures.reliability(
                cpu["reliability"], float(cpu["calibration_error"]), title
            )
        if self.thresholded:
            what = "a label" if self.rarer is None else spec.classes[self.rarer]
            drawn["f1_over_threshold"] = figures.f1_over_threshold(
                cpu["f1_curve"], float(cpu["threshold"]), what, title
            )
        rows = self._mistakes(split, results["mistakes"])
        if rows:
            heading = "The largest errors" if spec.numeric else "Wrong with the most confidence"
            drawn["mistakes"] = mistakes([_in_words(row) for row in rows], heading, title)
        return drawn


_NAMES = {"val": "validation", "test": "test"}
_OF_RARER = (
    "f1_rarer",
    "average_precision_rarer",
    "threshold",
    "f1_at_threshold",
    "f1_curve",
)


def _over_threshold(classes: int) -> dict[str, Metric]:
    return {
        "threshold": Threshold(classes),
        "f1_at_threshold": F1AtThreshold(classes),
        "f1_curve": F1Curve(classes),
    }


def _rarer(spec: TextSpec) -> int | None:
    """Return the number of the rarer of two classes, the second of equals; None for other data."""
    if spec.multilabel or len(spec.classes) != 2:
        return None
    first, second = spec.prevalence or (0.5, 0.5)
    return 0 if first < second else 1


def _in_words(mistake: Mapping[str, Any]) -> dict[str, str]:
    """Return what a figure shows of a mistake."""
    true, predicted = mistake["true"], mistake["predicted"]
    if isinstance(true, str):
        words = {"true": true, "predicted": f"{predicted}  {mistake['confidence']:.0%}"}
    else:
        words = {"true": f"{true:.4g}", "predicted": f"{predicted:.4g}"}
    text = " | ".join(str(mistake[name]) for name in ("text", "pair") if name in mistake)
    return {**words, "text": text, "source": str(mistake["source"])}


def _measured(results: Mapping[str, Tensor], spec: TextSpec) -> str:
    if spec.numeric:
        return f"R² {float(results['r2']):.3f}, mean absolute error {float(results['mae']):.3g}"
    if spec.multilabel:
        return f"mean average precision {float(results['map']):.3f}"
    total, right = int(results["confusion"].sum()), int(results["confusion"].trace())
    return f"{float(results['top1']):.2%} right, {total - right:,} of {total:,} wrong"


def _check(backbone: nn.Module, spec: TextSpec) -> int:
    """Return the channels of the backbone's last map.

    Raises:
        ValueError: If the backbone takes other tokens, or shorter texts.
        TypeError: If it is no network of ours.
    """
    vocabulary = getattr(backbone, "in_channels", None)
    if vocabulary is not None and vocabulary != spec.vocabulary:
        raise ValueError(
            f"backbone reads {vocabulary} different tokens, the data have {spec.vocabulary}; "
            f"set --model.backbone.in_channels {spec.vocabulary}"
        )
    out_channels = getattr(backbone, "out_channels", None)
    if not out_channels:
        raise TypeError(
            f"backbone {type(backbone).__name__} states no out_channels; take a network of resdomains.core"
        )
    length = getattr(getattr(backbone, "stem", None), "length", None)
    if length is not None and length < spec.max_length:
        raise ValueError(
            f"backbone has {length} positions, texts have up to {spec.max_length} tokens; "
            f"set --model.backbone.stem.length {spec.max_length}, or --data.max_length {length}"
        )
    return int(out_channels[-1])


def _bound(loss: Loss | NumberLoss | None, spec: TextSpec) -> Loss | NumberLoss:
    """Return the loss, or the usual one, with what it must know of the data.

    Raises:
        ValueError: If it is for other targets.
    """
    if loss is None and spec.numeric:
        loss = SquaredError()
    elif loss is None:
        loss = BinaryCrossEntropy() if spec.multilabel else CrossEntropy()
    if isinstance(loss, NumberLoss) != spec.numeric:
        targets = "numbers" if spec.numeric else "classes"
        other = "SquaredError" if spec.numeric else "CrossEntropy"
        raise ValueError(
            f"loss {type(loss).__name__} is not for targets that are {targets}; set --model.loss {other}"
        )
    if isinstance(loss, NumberLoss):
        loss.bind(spec.mean, spec.std)
    else:
        loss.bind(spec)
    return loss
