from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.strategies import Strategy
from torch import nn

from resdomains.cli.composition import Composer, changes
from resdomains.cli.errors import ConfigError
from resdomains.cli.schema import Schema
from resdomains.training import Replicated, Sharded


def composer(*configs: dict[str, Any]) -> Composer:
    found = Composer(Schema({"net": nn.Module, "seed": int, "names": list[str]}))
    for config in configs:
        found.add(config)
    return found


def resnet(**arguments: Any) -> dict[str, Any]:
    return {"class_path": "resdomains.core.ResNet2d", "init_args": arguments}


def test_keys_merge_deeply_and_lists_are_replaced() -> None:
    found = composer(
        {"net": resnet(in_channels=1, layers=[1, 1]), "names": ["a", "b"]},
        {"net": {"init_args": {"layers": [2]}}, "names": ["c"], "seed": 1},
    )
    assert found.config == {
        "net": resnet(in_channels=1, layers=[2]),
        "names": ["c"],
        "seed": 1,
    }


def test_a_plus_adds_to_a_list() -> None:
    found = composer({"names": ["a"]}, {"names+": ["b", "c"]}, {"names+": "d"})
    found.override(("names+",), "e")
    assert found.config == {"names": ["a", "b", "c", "d", "e"]}


def test_a_new_class_keeps_what_it_takes_and_says_so() -> None:
    found = composer({"net": resnet(in_channels=1, layers=[1, 1])})
    found.override(("net",), "resdomains.core.resnet20")
    assert found.config["net"] == {
        "class_path": "resdomains.core.resnet20",
        "init_args": {"in_channels": 1},
    }
    (note,) = found.notes
    assert "net is now resdomains.core.resnet20: kept in_channels; dropped layers" in note


def test_a_new_class_does_not_keep_what_the_old_one_alone_can_take() -> None:
    """Its layers were numbers of each stage, its stem one over maps."""
    given = {"layers": [1, 1], "stem": "resdomains.core.SmallImageStem", "in_channels": "8"}
    found = composer({"net": resnet(**given, merge="Highway")})
    found.override(("net",), "ResidualEncoder")
    assert found.config["net"]["init_args"] == {"in_channels": "8", "merge": "Highway"}
    (note,) = found.notes
    assert note.endswith(
        "kept in_channels, merge; dropped layers, stem of resdomains.core.ResNet2d"
    )


def test_a_mistake_is_not_lost_with_the_class() -> None:
    found = composer({"net": resnet(merge="Hihgway", in_channels="four")})
    found.override(("net",), "ResidualEncoder")
    assert found.config["net"]["init_args"] == {"merge": "Hihgway", "in_channels": "four"}


@pytest.mark.parametrize("arguments", [{}, {"loud": True}])
def test_a_class_has_a_short_name_beside_the_one_whose_place_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    """Nothing imported their package before."""
    package = f"birds_{len(arguments)}"
    (tmp_path / f"{package}.py").write_text(
        "from torch import nn\n\n"
        "class Tit(nn.Module):\n    def __init__(self, loud: bool = False) -> None: ...\n\n"
        "class Wren(Tit): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = Composer(Schema({"net": nn.Module}, extra=[package]))
    found.add({"net": {"class_path": f"{package}.Tit", "init_args": arguments}})
    found.override(("net",), "Wren")
    assert found.schema.normalise(found.config) == {
        "net": {"class_path": f"{package}.Wren", "init_args": arguments}
    }


def test_defaults_of_the_old_class_are_never_carried_over() -> None:
    """SGD's weight decay of 0 must not become AdamW's, as it does where defaults are merged."""
    found = composer({"net": resnet()})
    found.override(("net", "merge"), "DropPath")
    found.override(("net", "merge", "p"), "0.3")
    found.override(("net", "merge"), "Highway")
    assert found.config["net"]["init_args"]["merge"] == {"class_path": "Highway", "init_args": {}}


def test_the_same_class_by_another_name_keeps_everything() -> None:
    found = composer({"net": resnet(in_channels=1)})
    found.override(("net",), "ResNet2d")
    assert found.config["net"]["init_args"] == {"in_channels": 1}
    assert found.notes == []


@pytest.mark.parametrize("of_file", [False, True])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ddp", "ddp"),
        (Sharded.__name__, f"{Sharded.__module__}.Sharded"),
        ("resdomains.training.Sharded", "resdomains.training.Sharded"),
    ],
)
@pytest.mark.parametrize("before", ["auto", f"resdomains.training.{Replicated.__name__}"])
def test_a_name_may_stand_where_a_class_may(
    before: str, given: str, expected: str, of_file: bool
) -> None:
    strategies = Schema({"strategy": str | Strategy})
    found = Composer(strategies)
    found.add({"strategy": before if "." not in before else {"class_path": before}})
    if of_file:
        found.add({"strategy": given})
    else:
        found.override(("strategy",), given)
    chosen = strategies.normalise(found.config)["strategy"]
    part = {"class_path": expected, "init_args": {}}
    assert chosen == (part if "." in expected else expected)


def test_a_class_that_may_not_be_imported_is_no_plain_name() -> None:
    with pytest.raises(ConfigError, match=r"'somewhere.Strategy' may not be imported"):
        Schema({"strategy": str | Strategy}).normalise({"strategy": "somewhere.Strategy"})


def test_overrides_reach_nested_parts_with_or_without_init_args() -> None:
    found = composer({"net": resnet(merge="DropPath")})
    found.override(("net", "merge", "merge"), "LayerScale")
    found.override(("net", "init_args", "merge", "init_args", "merge", "init_args", "init"), "1e-5")
    assert found.config["net"] == resnet(
        merge={
            "class_path": "DropPath",
            "init_args": {"merge": {"class_path": "LayerScale", "init_args": {"init": "1e-5"}}},
        }
    )


def test_an_override_reaches_into_a_default_part() -> None:
    found = composer({"net": resnet()})
    found.override(("net", "block", "dropout"), "0.1")
    block = found.config["net"]["init_args"]["block"]
    assert block["class_path"].endswith(".Basic")
    assert block["init_args"] == {"dropout": "0.1"}


def test_an_override_may_be_a_whole_part() -> None:
    found = composer({"net": resnet(in_channels=1)})
    found.override(("net", "merge"), "{class_path: LayerScale, init_args: {init: 0.1}}")
    assert found.config["net"]["init_args"]["merge"]["init_args"] == {"init": 0.1}
    found.override(("net", "after"), "null")
    assert found.config["net"]["init_args"]["after"] is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("nett",), "nett: unknown key; did you mean 'net'"),
        (("net", "merg"), "net.merg: unknown key; did you mean 'merge'"),
        (("net", "merge", "p"), "net.merge.p: unknown key; keys of Add: zero_init"),
        (("seed", "x"), "seed.x: seed has no keys: it is a whole number"),
    ],
)
def test_an_unknown_part_of_a_key_is_named(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composer({"net": resnet()}).override(keys, "1")


def test_items_of_a_list_are_reached_by_number() -> None:
    found = composer({"names": ["a", "b"]})
    found.override(("names", "1"), "c")
    assert found.config["names"] == ["a", "c"]
    with pytest.raises(ConfigError, match="items 0 to 1"):
        found.override(("names", "2"), "c")


def test_changes_name_keys_as_the_command_line_does() -> None:
    old = {"net": resnet(in_channels=1), "seed": 0}
    new = {"net": resnet(in_channels=3, depth=2), "seed": 0}
    assert changes(old, new) == [("net.depth", None, 2), ("net.in_channels", 1, 3)]
