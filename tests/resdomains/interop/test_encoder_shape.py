"""A network that would compute something else than the source is refused, with what to set."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import resdomains.core as core
from resdomains.core import (
    Activation,
    BranchOnly,
    DropPath,
    FeedForward,
    Highway,
    LayerNorm,
    PreNorm,
    ReLU,
    ResidualEncoder,
    Reversible,
    RMSNorm,
    RotaryPositions,
    SelfAttention,
    SiLU,
    SinusoidalPositions,
    TokenStem,
    Valid,
    bert,
    bert_tiny,
    roberta,
)
from resdomains.interop import HuggingFace
from resdomains.interop.encoder_shape import (
    KINDS,
    NAMED,
    config_of,
    reasons_against,
    shape_of,
    shape_of_config,
)

transformers = pytest.importorskip("transformers")


def small(kind: str = "bert", **options: Any) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 40,
    }
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 40}
    return transformers.AutoConfig.for_model(kind, **(sizes | options))


def saved(config: Any, folder: Path) -> HuggingFace:
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return HuggingFace(str(folder))


def told(message: str) -> ResidualEncoder:
    """The network that a message says to set, built as the command line would."""
    words = message[message.index("--model.backbone ") :].split()
    assert len(words) % 2 == 0
    name, values = words[1], dict(zip(words[2::2], words[3::2], strict=True))
    options: dict[str, Any] = {}
    for key, text in values.items():
        *parents, last = key.removeprefix("--model.backbone.").split(".")
        where = options
        for parent in parents:
            where = where[parent]["init_args"]
        if text[0].isupper():
            where[last] = {"class": text, "init_args": {}}
        else:
            where[last] = float(text) if "." in text or "e" in text else int(text)

    def part(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        arguments = {k: part(v) for k, v in value["init_args"].items()}
        return partial(getattr(core, value["class"]), **arguments)

    built = getattr(core, name)(**{key: part(value) for key, value in options.items()})
    assert isinstance(built, ResidualEncoder)
    return built


class Quick(Activation):
    def forward(self, x: Tensor, valid: Valid | None = None) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


CONFIGS = {
    "layers and heads": small(num_hidden_layers=3, num_attention_heads=2),
    "named": small(
        hidden_size=128,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=512,
        vocab_size=30522,
    ),
    "named, own vocabulary": small(
        hidden_size=128, num_attention_heads=2, num_hidden_layers=2, intermediate_size=512
    ),
    "positions and types": small(max_position_embeddings=77, type_vocab_size=4),
    "inner width": small(intermediate_size=48),
    "relu": small(hidden_act="relu"),
    "swish": small(hidden_act="swish"),
    "eps": small(layer_norm_eps=1e-6),
    "electra": small("electra", embedding_size=32),
    "roberta": small("roberta", max_position_embeddings=50, type_vocab_size=1, layer_norm_eps=1e-5),
    "camembert's defaults": small("camembert"),
    "pad 3": small("xlm-roberta", pad_token_id=3, bos_token_id=0, type_vocab_size=1),
    "distilbert": small("distilbert"),
    "distilbert, relu": small("distilbert", activation="relu", max_position_embeddings=60),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_the_message_says_to_set_fits(name: str, tmp_path: Path) -> None:
    source = saved(CONFIGS[name], tmp_path)
    with pytest.raises(ValueError, match=r"the backbone has .*; set --model\.backbone") as caught:
        source.load(bert(5, 64, 8, in_channels=7))
    net = told(str(caught.value)).eval()
    source.load(net)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.randint(5, 40, (2, 9))
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(net(ids).maps[0].transpose(1, 2), expected, rtol=0, atol=1e-5)


def test_the_message_names_the_source_and_each_number(tmp_path: Path) -> None:
    source = saved(CONFIGS["named"], tmp_path)
    with pytest.raises(ValueError, match="is a bert of") as caught:
        source.load(bert(2, 128, 4, length=64, dropout=0.0))
    assert str(caught.value) == (
        f"source: {tmp_path} is a bert of 2 layers, width 128, 2 heads, inner width 512, "
        f"vocabulary 30522, 512 positions, 2 token types; the backbone has heads 4 (the source "
        f"has 2), positions 64 (the source has 512); set --model.backbone bert_tiny"
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (small(hidden_act="gelu_new"), "hidden_act is 'gelu_new', and resdomains has gelu, relu"),
        (
            small(position_embedding_type="relative_key"),
            "position_embedding_type is 'relative_key'",
        ),
        (small(is_decoder=True), "is_decoder is true"),
        (small("electra", embedding_size=16), "embedding_size is 16, not the hidden_size 32"),
        (small("distilbert", activation="gelu_new"), "activation is 'gelu_new'"),
    ],
)
def test_what_is_computed_nowhere_here_is_refused(config: Any, reason: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"resdomains does not compute: {reason}"):
        HuggingFace(str(tmp_path)).load(bert(2, 32, 4, in_channels=40))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"activation": ReLU}, "activation relu (the source has gelu)"),
        ({"norm": LayerNorm}, "eps of norms 1e-06 (the source has 1e-12)"),
        ({"merge": BranchOnly}, "merge BranchOnly (theirs is Add)"),
        ({"norm_position": PreNorm()}, "norm_position PreNorm (theirs is PostNorm)"),
    ],
)
def test_what_shapes_do_not_tell_is_refused(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Weights of these networks have the source's shapes, and would load."""
    net = bert(2, 32, 4, in_channels=40, **options)
    before = net.get_parameter("stem.tokens.weight").clone()
    source = saved(small(), tmp_path)
    for each in (source, HuggingFace(str(tmp_path / "model.safetensors"))):
        with pytest.raises(ValueError, match=re.escape(reason)):
            each.load(net)
    assert torch.equal(net.get_parameter("stem.tokens.weight"), before)


def test_a_file_without_a_config_is_taken_by_its_shapes(tmp_path: Path) -> None:
    saved(small(), tmp_path)
    (tmp_path / "config.json").unlink()
    HuggingFace(str(tmp_path / "model.safetensors")).load(bert(2, 32, 4, in_channels=40))


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bert", "hidden_size": "wide"}', "{}"])
def test_a_broken_config_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"source: {re.escape(str(tmp_path))}"):
        HuggingFace(str(tmp_path)).load(bert_tiny())


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=f"source: {re.escape(str(tmp_path))}: .*model.safetensors"
    ):
        HuggingFace(str(tmp_path)).load(bert(2, 32, 4, in_channels=40))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"merge": Highway}, "merge Highway (theirs is Add)"),
        ({"norm": RMSNorm}, "norm RMSNorm (theirs is LayerNorm)"),
        ({"activation": Quick}, "activation Quick (theirs are GELU, ReLU and SiLU)"),
        ({"coupling": Reversible()}, "coupling Reversible (theirs is Plain)"),
        ({"layer": (SelfAttention,)}, "layers of other parts than SelfAttention and FeedForward"),
        (
            {"layer": (partial(SelfAttention, positions=RotaryPositions), FeedForward)},
            "attention with RotaryPositions (theirs has none)",
        ),
        (
            {"layer": (SelfAttention, partial(FeedForward, scale=0.5))},
            "a scale of 0.5 in FeedForward (theirs has none)",
        ),
        (
            {"stem": partial(TokenStem, positions=SinusoidalPositions)},
            "positions SinusoidalPositions (theirs are LearnedPositions)",
        ),
    ],
)
def test_networks_of_another_kind_say_why(options: dict[str, Any], reason: str) -> None:
    net = bert(2, 32, 4, in_channels=40, **options)
    assert reasons_against(net) == [reason]
    with pytest.raises(ValueError, match=re.escape(f"BERT and its kin are others: {reason}")):
        shape_of(net)


def test_stochastic_depth_is_a_sum_where_nothing_is_dropped() -> None:
    assert not reasons_against(bert_tiny(merge=DropPath, activation=SiLU))
    assert reasons_against(bert_tiny(merge=partial(DropPath, merge=Highway)))


@pytest.mark.parametrize("kind", KINDS)
def test_config_and_shape_are_inverse(kind: str) -> None:
    built = {"roberta": partial(roberta, length=50), "distilbert": partial(bert, types=0)}
    net = built.get(KINDS[kind], bert)(2, 32, 4, expansion=1.5, in_channels=40)
    config = {"model_type": kind, "pad_token_id": 1} | config_of(shape_of(net), kind)
    assert shape_of_config(config) == shape_of(net)
    # transformers knows all the keys.
    assert config.keys() <= transformers.AutoConfig.for_model(kind).to_dict().keys()


def test_names_are_those_of_their_sizes() -> None:
    for (family, layers, width, heads, types), name in NAMED.items():
        with torch.device("meta"):
            shape = shape_of(getattr(core, name)())
            assert shape == shape_of(
                getattr(core, family)(
                    layers, width, heads, **({} if family == "roberta" else {"types": types})
                )
            )
