"""The same weights give the same hidden states as in the library they come from."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from resdomains.core import (
    BarePooler,
    FirstTokenHead,
    LayerScale,
    PooledHead,
    Pooler,
    ReluPooler,
    ResidualEncoder,
    TanhPooler,
    bert,
    bert_small,
    conformer_small,
    roberta,
    vit_tiny,
)
from resdomains.interop import HuggingFace, Timm, load_state

LENGTHS = torch.tensor([17, 5, 11, 1])
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "vocab_size": 90,
}


def shaken(model: Any) -> Any:
    """The model in eval mode, its norms and biases random; what starts at 0 or 1 proves nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
            else:
                parameter.mul_(3)
    return model.eval()


ROBERTAS = ("Roberta", "Camembert", "XLMRoberta")


def theirs(kind: str, **options: Any) -> Any:
    """BERT or one of its kin, of transformers, small, with random weights."""
    transformers = pytest.importorskip("transformers")
    sizes: dict[str, Any] = dict(SIZES)
    if kind in ROBERTAS:
        sizes |= {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "max_position_embeddings": 34}
    if kind == "Electra":
        sizes |= {"embedding_size": 64}
    if kind == "DistilBert":
        sizes = {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 256, "vocab_size": 90}
    name = options.pop("name", f"{kind}Model")
    config = getattr(transformers, f"{kind}Config")(**(sizes | options))
    torch.manual_seed(0)
    return shaken(getattr(transformers, name)(config))


def ours(kind: str, **options: Any) -> ResidualEncoder:
    """The same of ours, by its name."""
    if kind in ROBERTAS:
        return roberta(3, 64, 4, length=32, in_channels=90, **options).eval()
    types = 0 if kind == "DistilBert" else 2
    return bert(3, 64, 4, types=types, in_channels=90, **options).eval()


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Ids padded as RoBERTa pads, token types, and the mask of what counts."""
    torch.manual_seed(1)
    mask = torch.arange(int(LENGTHS.max())) < LENGTHS[:, None]
    ids = torch.where(mask, torch.randint(3, 90, mask.shape), 1)
    return ids, torch.randint(0, 2, ids.shape) * mask, mask


def difference(net: ResidualEncoder, model: Any, *, types: bool) -> float:
    ids, kinds, mask = texts()
    given = {"token_type_ids": kinds} if types else {}
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask.long(), **given).last_hidden_state
        x = torch.stack((ids, kinds), 1) if types else ids
        got = net(x, LENGTHS).maps[0].transpose(1, 2)
    assert expected[mask].std() > 0.1, "states without variety prove nothing"
    assert not got[~mask].any()
    return float((got - expected)[mask].abs().max())


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("Bert", True),
        ("Bert", False),
        ("Roberta", False),
        ("Camembert", False),
        ("XLMRoberta", False),
        ("Electra", True),
        ("DistilBert", False),
    ],
)
def test_hidden_states_are_those_of_transformers(kind: str, types: bool, tmp_path: Path) -> None:
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    net = ours(kind)
    loaded = HuggingFace(str(tmp_path)).load(net)
    assert set(loaded.filled) == set(net.state_dict())
    assert difference(net, model, types=types) < 1e-5


@pytest.mark.parametrize(
    ("kind", "pooler"),
    [
        ("Bert", TanhPooler),
        ("Roberta", TanhPooler),
        ("Camembert", TanhPooler),
        ("XLMRoberta", TanhPooler),
        ("DistilBert", ReluPooler),
    ],
)
def test_heads_go_with_their_backbone(kind: str, pooler: type[Pooler], tmp_path: Path) -> None:
    ids, _, mask = texts()
    model = theirs(kind, name=f"{kind}ForSequenceClassification", num_labels=5)
    model.save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        net, head = ours(kind), FirstTokenHead(64, 5, pooler=pooler).eval()
        loaded = HuggingFace(str(source)).load(net, head)
        assert not loaded.left_out
        assert not loaded.reason
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=mask.long()).logits
            assert expected.std() > 0.05
            torch.testing.assert_close(head(net(ids, LENGTHS)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "pooler"),
    [("Bert", ReluPooler), ("DistilBert", TanhPooler), ("Electra", TanhPooler)],
)
def test_a_pooler_of_another_function_takes_nothing_over(
    kind: str, pooler: type[Pooler], tmp_path: Path
) -> None:
    """Of equal shapes, and ELECTRA's has a GELU, which none of ours has."""
    theirs(kind, name=f"{kind}ForSequenceClassification", num_labels=5).save_pretrained(tmp_path)
    head = FirstTokenHead(64, 5, pooler=pooler)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    loaded = HuggingFace(str(tmp_path)).load(ours(kind), head)
    assert "reads something else than this FirstTokenHead" in loaded.reason
    assert len(loaded.left_out) == 4
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def test_fine_tuning_begins_with_the_pooled_output_of_transformers(tmp_path: Path) -> None:
    ids, kinds, mask = texts()
    model = theirs("Bert")
    model.save_pretrained(tmp_path)
    net, head = ours("Bert"), FirstTokenHead(64, 7, pooler=TanhPooler)
    HuggingFace(str(tmp_path)).load(net, head)
    with torch.no_grad():
        expected = model(
            input_ids=ids, token_type_ids=kinds, attention_mask=mask.long()
        ).pooler_output
        assert expected.std() > 0.1
        pooled = head.embed(net(torch.stack((ids, kinds), 1), LENGTHS))
    torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-5)


def test_berts_pooler_is_taken_over_where_its_classifier_is_not(tmp_path: Path) -> None:
    model = theirs("Bert")
    model.save_pretrained(tmp_path)
    net, head = ours("Bert"), FirstTokenHead(64, 5, pooler=TanhPooler)
    loaded = HuggingFace(str(tmp_path)).load(net, head)
    assert loaded.reason == "the source has no classifier"
    assert torch.equal(head.get_parameter("pooler.linear.weight"), model.pooler.dense.weight)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Electra", "ElectraForPreTraining"),
        ("DistilBert", "DistilBertForMaskedLM"),
        ("Roberta", "RobertaForMaskedLM"),
        ("Bert", "BertForQuestionAnswering"),
    ],
)
def test_the_body_of_models_for_other_tasks_is_read(kind: str, name: str, tmp_path: Path) -> None:
    model = theirs(kind, name=name)
    model.save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        net = ours(kind)
        HuggingFace(str(source)).load(net, FirstTokenHead(64, 5, pooler=TanhPooler))
        assert difference(net, model.base_model, types=False) < 1e-5


@pytest.mark.parametrize("head", [PooledHead(64, 5), FirstTokenHead(64, 5, pooler=BarePooler)])
def test_a_classifier_is_left_out_where_the_head_reads_something_else(head: PooledHead) -> None:
    model = theirs("Bert", name="BertForSequenceClassification", num_labels=5)
    before = head.linear.weight.clone()
    loaded = load_state(ours("Bert"), model.state_dict(), "huggingface", head)
    assert "reads something else" in loaded.reason
    assert loaded.left_out == (
        "pooler.dense.weight",
        "pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    )
    assert torch.equal(head.linear.weight, before)


def test_files_of_language_models_and_old_names_are_read(tmp_path: Path) -> None:
    """As bert-base-uncased lies on the hub: heads for other tasks, gamma and beta."""
    model = theirs("Bert", name="BertForPreTraining")
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value.clone()
        for key, value in state.items()
    }
    save_file(old, tmp_path / "old.safetensors")
    net = ours("Bert")
    loaded = HuggingFace(str(tmp_path / "old.safetensors")).load(net)
    assert any(key.startswith("cls.") for key in loaded.left_out)
    assert difference(net, model.bert, types=True) < 1e-5


def test_vit_logits_are_those_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    net, head = vit_tiny().eval(), FirstTokenHead(192, 10).eval()
    assert not Timm(str(tmp_path / "vit.safetensors")).load(net, head).left_out
    with torch.no_grad():
        x = torch.randn(2, 3, 224, 224)
        expected = model.forward_features(x)
        assert expected.std() > 0.1
        features = net(x)
        assert float((features.maps[0].transpose(1, 2) - expected).abs().max()) < 1e-5
        torch.testing.assert_close(head(features), model(x), rtol=0, atol=1e-5)


def test_timms_layer_scale_is_the_merge() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, init_values=0.3).eval()
    net = vit_tiny(merge=LayerScale).eval()
    load_state(net, model.state_dict(), "timm")
    with torch.no_grad():
        x = torch.randn(1, 3, 224, 224)
        got = net(x).maps[0].transpose(1, 2)
        torch.testing.assert_close(got, model.forward_features(x), rtol=0, atol=1e-5)


def test_encoders_without_counterpart_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("timm has no encoders like this one (stem Tok")):
        load_state(bert_small(), {}, "timm")
    with pytest.raises(ValueError, match="huggingface has no encoders like this one"):
        load_state(conformer_small(), {}, "huggingface")
    with pytest.raises(ValueError, match="library: expected one of torchvision, timm, hugg"):
        load_state(bert_small(), {}, "keras")


def test_another_size_is_listed() -> None:
    with pytest.raises(ValueError, match="do not fit this ResidualEncoder") as caught:
        load_state(bert_small(), theirs("Bert").state_dict(), "huggingface")
    assert "encoder.layer.3.attention.self.query.weight (for stack.blocks.6.branch.qkv.weight)" in (
        str(caught.value)
    )
    assert "stem.tokens.weight: expected (30522, 512), got (90, 64)" in str(caught.value)


def test_other_kinds_of_models_are_refused_by_name(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"kinds resnet, bert, .*, distilbert, but .* of the kind gpt2"
    ):
        HuggingFace(str(tmp_path)).load(bert_small())
