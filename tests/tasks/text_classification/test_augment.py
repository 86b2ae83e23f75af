import pytest
import torch

from resdomains.training.randomness import uniforms
from resdomains_tasks.text_classification.augment import TokenDropout


def draw(index: list[int], size: int, epoch: int = 0) -> torch.Tensor:
    return uniforms(0, epoch, torch.tensor(index), size)[:, :, None]


def test_the_share_of_tokens_is_replaced_and_nothing_else() -> None:
    ids = torch.arange(4, 404).repeat(200, 1)
    ids[:, :3] = torch.tensor([2, 3, 1])
    lengths = torch.full((200,), 400)
    lengths[0] = 50
    before = ids.clone()
    out = TokenDropout(0.25, replacement=1, spared=3)(ids, lengths, draw(list(range(200)), 400))
    assert torch.equal(ids, before)
    changed = out != ids
    assert torch.equal(out[changed], torch.ones_like(out[changed]))
    assert not changed[:, :3].any()
    assert not changed[0, 50:].any()
    assert abs(float(changed[1:, 3:].float().mean()) - 0.25) < 0.01


def test_what_happens_to_a_text_depends_on_neither_its_batch_nor_its_padding() -> None:
    part = TokenDropout(0.5)
    ids = torch.randint(2, 99, (3, 20))
    lengths = torch.tensor([20, 7, 12])
    together = part(ids, lengths, draw([5, 8, 2], 20))
    assert torch.equal(part(ids[1:2, :7], lengths[1:2], draw([8], 7))[0], together[1, :7])
    assert not torch.equal(part(ids, lengths, draw([5, 8, 2], 20, epoch=1)), together)


def test_the_number_of_the_text_stays() -> None:
    ids = torch.stack((torch.randint(2, 99, (2, 30)), torch.randint(0, 2, (2, 30))), 1)
    lengths, u = torch.tensor([30, 30]), draw([0, 1], 30)
    out = TokenDropout(0.5)(ids, lengths, u)
    assert torch.equal(out[:, 1], ids[:, 1])
    assert torch.equal(out[:, 0], TokenDropout(0.5)(ids[:, 0], lengths, u))
    assert not torch.equal(out[:, 0], ids[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 1.0}, r"probability must lie in \[0, 1\), got 1.0"),
        ({"replacement": -1}, "replacement must be an id, 0 or above, got -1"),
        ({"spared": -1}, "spared must be an id, 0 or above, got -1"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenDropout(**options)  # type: ignore[arg-type]
