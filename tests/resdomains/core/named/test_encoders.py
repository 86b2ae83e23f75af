"""Published sizes, and the law of padding for every name."""

import inspect
from functools import partial
from typing import Any

import pytest
import torch

import resdomains.core as core
from resdomains.core import Add, LayerScale, Recompute, ResidualEncoder, RMSNorm, SiLU
from resdomains.core.named import encoders


def names() -> list[str]:
    return [
        name
        for name, value in vars(encoders).items()
        if inspect.isfunction(value)
        and value.__module__ == encoders.__name__
        and not name.startswith("_")
    ]


def build(name: str, **options: Any) -> ResidualEncoder:
    network: ResidualEncoder = getattr(core, name)(**options)
    return network


def size(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # transformers' bert-base-uncased and roberta-base: 109,482,240 and 124,645,632 with poolers
        # of 768 x 769, which are our head's.
        ("bert_base", 109_482_240 - 768 * 769),
        ("bert_large", 335_141_888 - 1024 * 1025),
        ("roberta_base", 124_645_632 - 768 * 769),
        ("roberta_large", 355_359_744 - 1024 * 1025),
        ("distilroberta_base", 82_118_400 - 768 * 769),
        ("distilbert_base", 66_362_880),
        # Turc et al. 2019, table 1: 4.4, 11.3, 29.1 and 41.7 M; here as transformers counts them,
        # with their poolers.
        ("bert_tiny", 4_385_920 - 128 * 129),
        ("bert_mini", 11_170_560 - 256 * 257),
        ("bert_small", 28_763_648 - 512 * 513),
        ("bert_medium", 41_373_184 - 512 * 513),
        ("vit_tiny", 5_717_416 - 192 * 1000 - 1000),  # timm, with its classifier
        # Gulati et al. 2020 count 10.3 M with the decoder. Written out: 16 layers, and the stem.
        (
            "conformer_small",
            16 * (2 * (144 * 576 * 2 + 576 + 144) + 5 * 288)
            + 16 * (4 * 144 * 145 + 144 * 144 + 2 * 144)
            + 16 * (288 * 145 + 144 * 32 + 288 + 144 * 145)
            + (144 * 10 + 144 * (144 * 9 + 1) + 144 * (20 * 144 + 1)),
        ),
    ],
)
def test_networks_have_the_published_size(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert size(build(name)) == parameters


@pytest.mark.parametrize("name", names())
def test_every_name_builds_with_options(name: str) -> None:
    with torch.device("meta"):
        network = build(
            name,
            in_channels=20,
            merge=LayerScale,
            norm=RMSNorm,
            activation=SiLU,
            memory=Recompute(),
            dropout=0.0,
        )
    assert network.in_channels == 20
    assert {type(block.merge) for _, block in network.blocks()} == {LayerScale}
    kinds = {type(module) for module in network.modules()}
    assert RMSNorm in kinds
    assert core.LayerNorm not in kinds
    assert core.GELU not in kinds
    assert isinstance(network.stack.memory, Recompute)


@pytest.mark.parametrize("name", names())
def test_dropout_is_one_number(name: str) -> None:
    with torch.device("meta"):
        for dropout in (0.0, 0.3):
            network = build(name, dropout=dropout)
            found = {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)}
            assert dropout in found
            assert found <= {0.0, dropout}


@pytest.mark.parametrize(
    "name", [name for name in names() if name != "vit_tiny" and "large" not in name]
)
def test_an_item_alone_is_the_item_in_a_batch(name: str) -> None:
    torch.manual_seed(0)
    speech = name == "conformer_small"
    small = {} if speech else {"in_channels": 50}
    network = build(name, merge=partial(Add, zero_init=False), **small).eval()
    lengths = torch.tensor([40, 9, 1, 22])
    x = torch.randn(4, 80, 40) if speech else torch.randint(0, 50, (4, 40))
    with torch.no_grad():
        together = network(x, lengths)
        valid = together.valid[0]
        assert valid is not None
        for number, length in enumerate(lengths.tolist()):
            alone = network(x[number : number + 1, ..., :length]).maps[0][0]
            assert int(valid.lengths[number]) == alone.shape[1]
            error = (together.maps[0][number, :, : alone.shape[1]] - alone).abs().max()
            assert error / alone.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("bert", "BertModel", {}),
        ("roberta", "RobertaModel", {"type_vocab_size": 1, "max_position_embeddings": 130}),
    ],
)
def test_any_size_is_that_of_transformers(name: str, kind: str, options: dict[str, int]) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"max_position_embeddings": 128} | options
    config = transformers.AutoConfig.for_model(
        name,
        hidden_size=96,
        num_hidden_layers=5,
        num_attention_heads=6,
        intermediate_size=144,
        vocab_size=70,
        **sizes,
    )
    with torch.device("meta"):
        theirs = getattr(transformers, kind)(config, add_pooling_layer=False)
        ours = build(name, layers=5, width=96, heads=6, length=128, expansion=1.5, in_channels=70)
    assert size(ours) == size(theirs)
    attention = next(ours.blocks())[1].branch
    assert isinstance(attention, core.SelfAttention)
    assert attention.heads == 6


@pytest.mark.parametrize(("name", "depth"), [("bert_base", 12), ("conformer_small", 16)])
def test_depth_counts_layers(name: str, depth: int) -> None:
    with torch.device("meta"):
        network = build(name)
    assert network.depth == depth
    assert len(list(network.blocks())) == depth * (4 if name == "conformer_small" else 2)


def test_simba_is_as_large_as_published() -> None:
    """Lee et al. 2024: linear, then blocks of two linear maps with four times the width inside."""
    network = core.simba(in_channels=17)
    width = 512
    block = 2 * width + width * 4 * width + 4 * width + 4 * width * width + width
    assert size(network) == 17 * width + width + 2 * block + 2 * width
    actor = core.simba(1, 128, in_channels=17)
    assert (actor.depth, actor.out_channels) == (1, (128,))


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="mergee"):
        core.bert_small(mergee=Add)  # type: ignore[call-arg]
