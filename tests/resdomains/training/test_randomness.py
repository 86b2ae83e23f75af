import torch

from resdomains.training.randomness import uniforms


def test_a_sample_draws_the_same_in_any_batch() -> None:
    whole = uniforms(3, 5, torch.arange(100), 4)
    part = uniforms(3, 5, torch.tensor([70, 2]), 4)
    assert torch.equal(part, whole[[70, 2]])


def test_seed_epoch_index_and_draw_all_matter() -> None:
    index = torch.arange(1000)
    base = uniforms(0, 0, index, 2)
    for other in (
        uniforms(1, 0, index, 2),
        uniforms(0, 1, index, 2),
        uniforms(0, 0, index + 1000, 2),
    ):
        assert abs(torch.corrcoef(torch.stack([base[:, 0], other[:, 0]]))[0, 1]) < 0.1
    assert abs(torch.corrcoef(base.T)[0, 1]) < 0.1


def test_draws_are_uniform() -> None:
    draws = uniforms(0, 0, torch.arange(20_000), 5).flatten()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = torch.histc(draws, 10, 0, 1) / len(draws)
    assert torch.allclose(counts, torch.full((10,), 0.1), atol=0.005)
