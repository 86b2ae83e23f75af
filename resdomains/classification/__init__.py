"""What all tasks that name classes share: losses, metrics, figures."""

from resdomains.classification.labels import Labels, ranking
from resdomains.classification.losses import BinaryCrossEntropy, CrossEntropy, Loss
from resdomains.classification.metrics import (
    AveragePrecision,
    CalibrationError,
    Confusion,
    Exact,
    MacroF1,
    MeanAveragePrecision,
    Reliability,
    TopK,
)

__all__ = [
    "AveragePrecision",
    "BinaryCrossEntropy",
    "CalibrationError",
    "Confusion",
    "CrossEntropy",
    "Exact",
    "Labels",
    "Loss",
    "MacroF1",
    "MeanAveragePrecision",
    "Reliability",
    "TopK",
    "ranking",
]
