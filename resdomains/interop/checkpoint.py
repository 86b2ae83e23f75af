"""Weights of an earlier run of our own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from resdomains.core.heads import TaskHead
from resdomains.interop.loading import Loaded, refuse_misfits
from resdomains.interop.sources import Weights

if TYPE_CHECKING:
    from resdomains.training.spec import Spec

_SHOWN = 6


class Checkpoint(Weights):
    """An earlier run's checkpoint, ``best.ckpt`` or ``last.ckpt``; ``source`` is the file.

    The network must be the one that the run trained, whatever its kind. Of the head, outputs whose
    name (a class, a token) the run knew as well keep their weights, the others begin anew; what
    lies below the outputs, such as a pooler, is kept where it has the same shape.
    """

    def load(
        self, network: nn.Module, head: TaskHead | None = None, spec: Spec | None = None
    ) -> Loaded:
        """Fills ``network``, and the outputs of ``head`` that ``spec`` names as the run's did.

        Raises:
            ValueError: the file is no checkpoint, its weights do not fit, or its inputs mean
                something else, such as the ids of another tokenizer; nothing has been changed then.
        """
        checkpoint = self._read()
        state: Mapping[str, Tensor] = checkpoint["state_dict"]
        theirs = None if spec is None else _described(spec, checkpoint["resdomains"]["spec"])
        if spec is not None:
            self._check_inputs(theirs, spec)
        ours = network.state_dict()
        given = _below("backbone.", state)
        refuse_misfits(
            self.source,
            network,
            [key for key in ours if key not in given],
            [key for key in given if key not in ours],
            [
                f"{key}: expected {tuple(ours[key].shape)}, got {tuple(value.shape)}"
                for key, value in given.items()
                if key in ours and value.shape != ours[key].shape
            ],
        )
        filled = list(given)
        reason = "no head was given"
        with torch.no_grad():
            for key, value in given.items():
                ours[key].copy_(value)
            if head is not None:
                kept, reason = _fill(head, _below("head.", state), theirs, spec)
                filled += [f"head.{key}" for key in kept]
        used = {key if key.startswith("head.") else f"backbone.{key}" for key in filled}
        return Loaded(tuple(filled), tuple(key for key in state if key not in used), reason)

    def load_others(self, modules: Mapping[str, nn.Module]) -> list[str]:
        """Fills further modules of a task, whole or not at all; returns the names of those that begin anew.

        ``modules`` are what the run's task holds under the same names, such as running statistics.

        Raises:
            ValueError: the file is no checkpoint.
        """
        state: Mapping[str, Tensor] = self._read()["state_dict"]
        anew = []
        with torch.no_grad():
            for name, module in modules.items():
                given, own = _below(f"{name}.", state), module.state_dict()
                if own.keys() != given.keys() or any(
                    own[key].shape != given[key].shape for key in own
                ):
                    anew.append(name)
                    continue
                for key, value in given.items():
                    own[key].copy_(value)
        return anew

    def _read(self) -> dict[str, Any]:
        # Imported here: it brings Lightning, which takes seconds that other weights need not wait.
        from resdomains.training.checkpoints import BadCheckpoint, read_checkpoint

        try:
            return read_checkpoint(Path(self.source).expanduser())
        except BadCheckpoint as error:
            raise ValueError(f"source: {error}") from error

    def _check_inputs(self, theirs: Spec | None, ours: Spec) -> None:
        for name, value in ours.input_meaning.items():
            if theirs is None:
                raise ValueError(
                    f"source: {self.source} was not trained on {ours.about}, whose {name} its "
                    f"network would have to know; take a run of the same task"
                )
            other = theirs.input_meaning[name]
            if other != value:
                raise ValueError(
                    f"source: {self.source} was trained with another {name} than the data's"
                    f"{_between(other, value)}, so that the same numbers stand for something else; "
                    f"give the data the {name} of that run"
                )


def _described(spec: Spec, plain: Mapping[str, Any]) -> Spec | None:
    """The run's own description of its data; None where it is of another kind of data."""
    try:
        return type(spec).of(plain)
    except (ValueError, TypeError):
        return None


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and isinstance(value, Tensor)
    }


def _between(theirs: object, ours: object) -> str:
    """Both values, where they are short enough to be read."""
    values = f" ({theirs} and {ours})"
    return values if len(values) < 80 else ""


def _fill(
    head: TaskHead, given: Mapping[str, Tensor], theirs: Spec | None, ours: Spec | None
) -> tuple[list[str], str]:
    """Fills what fits of a head; the keys that were filled, and why not all were."""
    own = head.state_dict()
    below = [key for key in own if key not in head.rows]
    if own.keys() != given.keys() or any(
        _width(head, key, own[key]) != _width(head, key, given[key]) for key in own
    ):
        return [], f"the source's head has other parts than this {type(head).__name__}"
    for key in below:
        own[key].copy_(given[key])
    if ours is None:
        return below, "no spec was given that says what the outputs mean"
    if theirs is None:
        return below, f"the source's outputs are not those of {ours.about}"
    known = {name: row for row, name in enumerate(theirs.output_names)}
    pairs = [(row, known[name]) for row, name in enumerate(ours.output_names) if name in known]
    if not pairs or any(len(known) != len(given[key]) for key in head.rows):
        return below, (
            f"the source's outputs are others: {_shown(theirs.output_names)}; "
            f"these are {_shown(ours.output_names)}"
        )
    to, origin = torch.tensor(pairs).T
    for key in head.rows:
        own[key][to] = given[key][origin].to(own[key])
    fresh = [name for name in ours.output_names if name not in known]
    return list(own), (
        f"{len(pairs)} of {len(ours.output_names)} outputs are the source's, the rest begin "
        f"anew: {_shown(fresh)}"
        if fresh
        else ""
    )


def _width(head: TaskHead, key: str, tensor: Tensor) -> torch.Size:
    """The shape that must agree: all of it, or of the outputs' rows all but their number."""
    return tensor.shape[1:] if key in head.rows else tensor.shape


def _shown(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return (", ".join(names[:_SHOWN]) + more) or "not named"
