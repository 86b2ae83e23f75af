import pytest
import torch

from resdomains.training import precision


@pytest.fixture(autouse=True)
def _forget() -> None:
    precision.choose_precision.cache_clear()


def test_cpu_without_bf16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert precision.choose_precision("cpu").name == "32-true"


def test_failed_self_test_computes_in_float32_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(precision, "_bf16_error", lambda: float("nan"))
    chosen = precision.choose_precision("cpu")
    assert chosen.name == "32-true"
    assert "failed its self-test" in chosen.reason


def test_self_test_passes_where_the_cpu_has_bf16() -> None:
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        pytest.skip("this CPU has no avx512_bf16")
    with torch.inference_mode():  # as in predict
        assert 0 < precision._bf16_error() < 0.02
    assert precision.choose_precision("cpu").name == "bf16-mixed"
