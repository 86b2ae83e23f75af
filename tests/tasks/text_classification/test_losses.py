import pytest
import torch

from resdomains_tasks.text_classification.losses import SquaredError


def test_the_squared_error_is_in_units_of_the_targets_variance() -> None:
    targets = torch.tensor([10.0, 14.0, 30.0, 2.0])
    loss = SquaredError()
    loss.bind(float(targets.mean()), float(targets.std(correction=0)))
    assert float(loss(torch.zeros(4, 1), targets)) == pytest.approx(1.0)
    said = torch.tensor([[0.5], [-1.0], [2.0], [0.0]])
    expected = (loss.numbers(said) - targets).square().mean() / targets.var(correction=0)
    assert float(loss(said, targets)) == pytest.approx(float(expected))


def test_outputs_become_numbers_in_the_targets_unit_and_in_float32() -> None:
    loss = SquaredError()
    loss.bind(100.0, 20.0)
    said = torch.tensor([[0.5], [-1.0]], dtype=torch.bfloat16)
    assert loss.numbers(said).tolist() == [110.0, 80.0]
    assert loss.numbers(said).dtype == loss(said, torch.zeros(2)).dtype == torch.float32
