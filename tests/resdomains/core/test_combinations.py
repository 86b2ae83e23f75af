"""The table in resdomains/core/README.md says what building a network and training it a step show."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import resdomains.core
from resdomains.core import (
    Add,
    Basic,
    BranchOnly,
    DeepNorm,
    DoublyStochastic,
    DropPath,
    Dynamic,
    Highway,
    HyperConnection,
    LayerScale,
    Merge,
    NormActivated,
    Plain,
    PostNorm,
    PreActivationBasic,
    Recompute,
    ResidualEncoder,
    ResidualMLP,
    ResNet1d,
    ResNet2d,
    Reverse,
    Reversible,
    ReZero,
    ShortcutOnly,
    Site,
    Store,
)

README = Path(resdomains.core.__file__).parent / "README.md"
BEGIN, END = "<!-- combinations -->\n", "<!-- end of combinations -->\n"

MERGES: dict[str, Callable[[Site], Merge]] = {
    "Add": Add,
    "BranchOnly": BranchOnly,
    "ShortcutOnly": ShortcutOnly,
    "Highway": Highway,
    "ReZero": ReZero,
    "LayerScale": LayerScale,
    "DropPath(Add)": DropPath,
    "DropPath(Highway)": partial(DropPath, merge=Highway),
    "DeepNorm": DeepNorm,
    "HyperConnection": HyperConnection,
    "HyperConnection(Dynamic, DoublyStochastic)": partial(
        HyperConnection, streams=2, weights=Dynamic, mixing=DoublyStochastic()
    ),
}
IMAGE, SIGNAL, VECTOR = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 12), torch.randn(4, 4)
TOKENS, LENGTHS = torch.randint(1, 9, (2, 6)), torch.tensor([6, 3])
CONV: dict[str, Any] = {"layers": (2, 2), "channels": (8, 16)}
SEQUENCE: dict[str, Any] = {"layers": 2, "width": 64, "in_channels": 10}
FAMILIES: dict[str, tuple[Callable[..., nn.Module], tuple[Tensor, ...]]] = {
    "ResNet": (partial(ResNet2d, **CONV, block=Basic), (IMAGE,)),
    "ResNet, norm after the sum": (partial(ResNet2d, **CONV, after=NormActivated), (IMAGE,)),
    "pre-activation ResNet": (partial(ResNet2d, **CONV, block=PreActivationBasic), (IMAGE,)),
    "ResNet1d, lengths": (partial(ResNet1d, **CONV), (SIGNAL, torch.tensor([12, 7]))),
    "encoder, pre-norm": (partial(ResidualEncoder, **SEQUENCE), (TOKENS, LENGTHS)),
    "encoder, post-norm": (
        partial(ResidualEncoder, **SEQUENCE, norm_position=PostNorm()),
        (TOKENS, LENGTHS),
    ),
    "MLP": (partial(ResidualMLP, layers=2, width=8), (VECTOR,)),
}
WAYS: dict[str, list[dict[str, Any]]] = {
    "plain": [
        {"coupling": Plain(), "memory": Store()},
        {"coupling": Plain(), "memory": Recompute()},
    ],
    "coupled": [
        {"coupling": Reversible(), "memory": Store()},
        {"coupling": Reversible(), "memory": Recompute()},
    ],
    "reversed": [{"coupling": Reversible(), "memory": Reverse()}],
}


def trains(family: str, **parts: Any) -> bool:
    """Whether the network is built; if it is, a step of training must give finite gradients."""
    build, inputs = FAMILIES[family]
    torch.manual_seed(0)
    try:
        network = build(**parts)
    except ValueError:
        return False
    result: Any = network(*inputs)
    result.maps[-1].square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients), (family, parts)
    return True


def cell(family: str, merge: str) -> str:
    """The ways that hold, each meaning that those before it hold too."""
    held = []
    for name, ways in WAYS.items():
        found = {trains(family, merge=MERGES[merge], **way) for way in ways}
        assert len(found) == 1, f"Store and Recompute differ: {family}, {merge}, {name}"
        held.append(found.pop())
    assert held == sorted(held, reverse=True)
    return list(WAYS)[sum(held) - 1] if any(held) else "-"


def table() -> str:
    """The whole table in Markdown."""
    rows = [["merge", *FAMILIES]]
    rows += [[merge, *(cell(family, merge) for family in FAMILIES)] for merge in MERGES]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines) + "\n"


def test_the_readme_says_what_holds() -> None:
    text = README.read_text()
    written = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    measured = table()
    assert written == measured, f"put this between the marks in {README}:\n{measured}"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_refused_says_what_to_use(family: str) -> None:
    build, _ = FAMILIES[family]
    for merge in MERGES.values():
        for ways in WAYS.values():
            for way in ways:
                if not trains(family, merge=merge, **way):
                    with pytest.raises(ValueError, match=r"; use |; pass |or use "):
                        build(merge=merge, **way)
