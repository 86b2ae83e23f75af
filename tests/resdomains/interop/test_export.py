"""What is written is loaded by transformers' pipeline with equal outputs, and reads back as it was."""

import json
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resdomains.core import (
    BarePooler,
    FirstTokenHead,
    Highway,
    LayerNorm,
    PooledHead,
    Pooler,
    PreNorm,
    ReLU,
    ReluPooler,
    ResidualEncoder,
    TanhPooler,
    bert,
    roberta,
    vdcnn9,
)
from resdomains.interop import HuggingFace, export_encoder

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXTS = [
    "a good film",
    "the worst of films, and long",
    "Films of people, of whom nobody knows anything; the second is longer than the first.",
    "unknowable \u4e2d\u6587 \N{GRINNING FACE}",
    "",
]
# None is empty: transformers takes an empty second text for none, and leaves out its [SEP].
PAIRS = ["it is good", "bad", "so", "the film of the year", "long and good"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@cache  # training twice breaks ties in another order
def trained(pad: int = 0) -> str:
    """WordPiece, trained on the texts; padding has the id ``pad``."""
    special = ["[UNK]", "[CLS]", "[SEP]"]
    special.insert(pad, "[PAD]")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=90, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS + PAIRS, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, special.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    # As a checkpoint of another program may have it.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    return str(tokenizer.to_str())


@cache
def byte_pairs() -> str:
    """A tokenizer like RoBERTa's, as its maker publishes it."""
    tokenizer = tokenizers.ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        TEXTS + PAIRS,
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    fast = transformers.RobertaTokenizerFast(
        vocab=tokenizer.get_vocab(), merges=[], add_prefix_space=False
    )
    return str(fast.backend_tokenizer.to_str())


def shaken(*modules: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in modules:
            module.eval()
            for parameter in module.parameters():
                shape = parameter.shape
                parameter.add_(torch.randn(shape, generator=generator), alpha=0.3)


def logits(
    network: ResidualEncoder, head: FirstTokenHead, tokenizer: str, pairs: Sequence[str] | None
) -> Tensor:
    tokens = tokenizers.Tokenizer.from_str(tokenizer)
    tokens.no_padding()
    tokens.no_truncation()
    found = []
    for number, text in enumerate(TEXTS):
        encoding = tokens.encode(text, None if pairs is None else pairs[number])
        x = torch.tensor([encoding.ids])
        types = network.get_parameter("stem.types.weight") if "types" in kinds(network) else None
        if pairs is not None and types is not None and len(types) > 1:
            x = torch.stack((x, torch.tensor([encoding.type_ids])), 1)
        with torch.no_grad():
            found.append(head(network(x)))
    return torch.cat(found)


def kinds(network: ResidualEncoder) -> set[str]:
    return {name.split(".")[1] for name, _ in network.named_parameters() if name.startswith("stem")}


def scores(folder: Path, pairs: Sequence[str] | None, batch: int = 1) -> dict[str, Tensor]:
    """What the pipeline says of each text, by label."""
    classify = transformers.pipeline("text-classification", str(folder), device="cpu", top_k=None)
    inputs: Any = TEXTS
    if pairs is not None:
        inputs = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, pairs, strict=True)]
    found = classify(inputs, batch_size=batch)
    names = sorted(classify.model.config.label2id, key=classify.model.config.label2id.get)
    by_name = [{each["label"]: each["score"] for each in text} for text in found]
    return {name: torch.tensor([text[name] for text in by_name]) for name in names}


CASES: dict[str, tuple[Any, type[Pooler], str]] = {
    "bert": (partial(bert, length=128), TanhPooler, "bert"),
    "bert without types": (partial(bert, types=0, activation=ReLU), TanhPooler, "bert"),
    "roberta": (partial(roberta, length=128), TanhPooler, "roberta"),
    "distilbert": (partial(bert, types=0), ReluPooler, "distilbert"),
}


@pytest.mark.parametrize("problem", ["single", "multi"])
@pytest.mark.parametrize("name", CASES)
def test_pipelines_give_equal_outputs(name: str, problem: str, tmp_path: Path) -> None:
    build, pooler, kind = CASES[name]
    network = build(2, 32, 4, in_channels=320)
    head = FirstTokenHead(32, 3, dropout=0.2, pooler=pooler)
    shaken(network, head)
    tokenizer = byte_pairs() if kind == "roberta" else trained()
    said = export_encoder(
        network,
        head,
        tokenizer=tokenizer,
        classes=["good", "b\u00f6se", "1"],
        multilabel=problem == "multi",
        max_length=128,
        folder=tmp_path / "new" / "folder",
    )
    assert said.startswith(f"a {kind} of 2 layers, width 32, 4 heads")
    for pairs in (None, PAIRS):
        raw = logits(network, head, tokenizer, pairs)
        expected = raw.sigmoid() if problem == "multi" else raw.softmax(1)
        assert raw.std(0).max() > 0.1, "outputs without variety prove nothing"
        for batch in (1, 3):
            found = scores(tmp_path / "new" / "folder", pairs, batch)
            assert list(found) == ["good", "b\u00f6se", "1"]
            got = torch.stack(list(found.values()), 1)
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("pad", "kind"), [(1, "roberta"), (0, "bert")])
def test_positions_from_two_need_the_padding_before_them(
    pad: int, kind: str, tmp_path: Path
) -> None:
    """With another padding the unused rows are cut off, and BERT computes the same."""
    network, head = roberta(2, 32, 4, in_channels=90), FirstTokenHead(32, 2, pooler=TanhPooler)
    shaken(network, head)
    options: dict[str, Any] = {"classes": ["no", "yes"], "multilabel": False, "max_length": 60}
    said = export_encoder(network, head, tokenizer=trained(pad), folder=tmp_path, **options)
    assert said.startswith(f"a {kind} of")
    expected = logits(network, head, trained(pad), None).softmax(1)
    got = torch.stack(list(scores(tmp_path, None, 5).values()), 1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_numbers_are_given_in_their_own_unit(tmp_path: Path) -> None:
    network, head = bert(2, 32, 4, in_channels=90), FirstTokenHead(32, 1, pooler=TanhPooler)
    shaken(network, head)
    export_encoder(
        network,
        head,
        tokenizer=trained(),
        classes=[],
        multilabel=False,
        max_length=128,
        folder=tmp_path,
        scale=2.5,
        shift=-4.0,
    )
    expected = 2.5 * logits(network, head, trained(), None)[:, 0] - 4
    torch.testing.assert_close(scores(tmp_path, None)["LABEL_0"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_what_was_written_reads_back_as_it_was(name: str, tmp_path: Path) -> None:
    build, pooler, _ = CASES[name]
    network, head = build(2, 32, 4, in_channels=320), FirstTokenHead(32, 3, pooler=pooler)
    shaken(network, head)
    export_encoder(
        network,
        head,
        tokenizer=byte_pairs() if name == "roberta" else trained(),
        classes=["a", "b", "c"],
        multilabel=False,
        max_length=128,
        folder=tmp_path,
    )
    types = {"types": 1} if name == "bert without types" else {}
    again, its_head = (
        build(2, 32, 4, in_channels=320, **types),
        FirstTokenHead(32, 3, pooler=pooler),
    )
    assert not HuggingFace(str(tmp_path)).load(again, its_head).left_out
    for module, other in ((again, network), (its_head, head)):
        of_other = other.state_dict()
        for key, value in module.state_dict().items():
            if key in of_other:
                assert torch.equal(value, of_other[key])


def test_truncation_is_written(tmp_path: Path) -> None:
    network, head = bert(1, 32, 4, in_channels=90), FirstTokenHead(32, 2, pooler=TanhPooler)
    shaken(network, head)
    said = {}
    for side in ("head", "tail", "both"):
        said[side] = export_encoder(
            network,
            head,
            tokenizer=trained(),
            classes=["no", "yes"],
            multilabel=False,
            max_length=8,
            folder=tmp_path / side,
            truncation=side,
        )
        tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / side)
        full = tokens(TEXTS[2])["input_ids"]
        cut = tokens(TEXTS[2], truncation=True)["input_ids"]
        assert len(full) > 8
        kept = full[-7:-1] if side == "tail" else full[1:7]
        assert cut == [full[0], *kept, full[-1]]
        assert tokens.pad_token_id == 0
        plain = json.loads((tmp_path / side / "tokenizer.json").read_text())
        assert plain["truncation"] is plain["padding"] is None
    assert "cannot keep both ends" in said["both"]
    assert "ends" not in said["head"]


def test_dropout_goes_with_the_model(tmp_path: Path) -> None:
    network = bert(1, 32, 4, dropout=0.25, in_channels=90)
    head = FirstTokenHead(32, 2, dropout=0.5, pooler=TanhPooler)
    export_encoder(
        network,
        head,
        tokenizer=trained(),
        classes=["no", "yes"],
        multilabel=False,
        max_length=8,
        folder=tmp_path,
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["hidden_dropout_prob"], config["classifier_dropout"]) == (0.25, 0.5)


def tanh(classes: int = 2) -> FirstTokenHead:
    return FirstTokenHead(32, classes, pooler=TanhPooler)


@pytest.mark.parametrize(
    ("build", "head", "reason"),
    [
        (partial(bert, merge=Highway), tanh(), "merge Highway (theirs is Add)"),
        (partial(bert, norm_position=PreNorm()), tanh(), "norm_position PreNorm"),
        (bert, PooledHead(32, 2), "head PooledHead (theirs is FirstTokenHead)"),
        (bert, FirstTokenHead(32, 2, pooler=BarePooler), "pooler BarePooler (BERT's is TanhPooler"),
        (bert, FirstTokenHead(32, 2, pooler=ReluPooler), "token types with ReluPooler"),
        (
            partial(bert, types=0, norm=LayerNorm),
            FirstTokenHead(32, 2, pooler=ReluPooler),
            "eps 1e-06 with ReluPooler",
        ),
    ],
)
def test_other_networks_are_refused_with_the_reason(
    build: Any, head: nn.Module, reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(ValueError, match="transformers has no text classifier like") as caught:
        export_encoder(
            build(2, 32, 4, in_channels=90),
            head,
            tokenizer=trained(),
            classes=["no", "yes"],
            multilabel=False,
            max_length=30,
            folder=folder,
        )
    assert reason in str(caught.value)
    assert not folder.exists()


def test_convolutional_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("backbone ResNet1d (theirs is ResidualEnc")):
        export_encoder(
            vdcnn9(),
            tanh(),
            tokenizer=trained(),
            classes=["no", "yes"],
            multilabel=False,
            max_length=30,
            folder=tmp_path,
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b", "c"]}, "classes: expected 2, the outputs of the head, got 3"),
        ({"truncation": "middle"}, "truncation: expected one of head, tail, both, got 'middle'"),
        ({"scale": 2.0}, "scale, shift: only a network without classes"),
        ({"backbone": bert(1, 32, 4, in_channels=20)}, "more than the network's in_channels 20"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "backbone": bert(1, 32, 4, in_channels=90),
        "head": tanh(),
        "tokenizer": trained(),
        "classes": ["no", "yes"],
        "multilabel": False,
        "max_length": 30,
        "folder": tmp_path,
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        export_encoder(**(given | options))
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder: expected a new or empty folder"):
        export_encoder(**given)
