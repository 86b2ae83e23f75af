"""Vectors that ids stand for."""

from torch import nn


class Table(nn.Embedding):
    """Vectors of which a batch looks up a few; nothing else reads ``weight``.

    Where ``sparse`` is set, as while a step's gradients are averaged over processes on CPUs, the
    gradient of ``weight`` is a sparse tensor of the rows that were looked up: it travels in less time.
    Were ``weight`` used otherwise too, torch would raise "Expected variable to have sparse gradient".
    """
