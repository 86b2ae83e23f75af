"""Probes: what each residual block does, in training and after it; callbacks for any task.

A probe that is switched off costs nothing: it attaches its hooks for the batches that it measures and no longer.
"""

from resdomains.probes.blocks import Block, blocks_of
from resdomains.probes.contribution import Contribution, Watch
from resdomains.probes.gain import CompositeGain, composite_gains
from resdomains.probes.gradients import GradientFlow, grad_ratio, gradient_norms
from resdomains.probes.lesion import Lesion, Removal, lesioned
from resdomains.probes.probe import Probe, profile
from resdomains.probes.scoring import TrainScore

__all__ = [
    "Block",
    "CompositeGain",
    "Contribution",
    "GradientFlow",
    "Lesion",
    "Probe",
    "Removal",
    "TrainScore",
    "Watch",
    "blocks_of",
    "composite_gains",
    "grad_ratio",
    "gradient_norms",
    "lesioned",
    "profile",
]
