import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from resdomains_tasks.speech_recognition.ctc import CTC, needed_frames


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    """What a path of one token a frame says: repetitions are one token, blanks none."""
    return tuple(token for token, _ in itertools.groupby(path) if token)


def likelihood(probabilities: Tensor, transcript: tuple[int, ...]) -> float:
    """The sum over all paths that say the transcript, one by one."""
    frames, vocabulary = probabilities.shape
    return sum(
        math.prod(float(probabilities[t, token]) for t, token in enumerate(path))
        for path in itertools.product(range(vocabulary), repeat=frames)
        if collapsed(path) == transcript
    )


def transcripts(vocabulary: int, longest: int) -> Iterator[tuple[int, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(range(1, vocabulary), repeat=length)


def batch(
    texts: list[tuple[int, ...]], frames: list[int], vocabulary: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random logits, and what must not matter behind each item."""
    torch.manual_seed(seed)
    size = max(len(text) for text in texts)
    tokens = torch.full((len(texts), size), 999)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = torch.tensor(text, dtype=torch.long)
    logits = torch.randn(len(texts), max(frames), vocabulary).mul(2).requires_grad_()
    return logits, torch.tensor(frames), tokens, torch.tensor([len(text) for text in texts])


def test_loss_and_feasibility_are_those_of_all_alignments_one_by_one() -> None:
    cases = [(text, frames) for frames in (1, 2, 3, 4) for text in transcripts(3, 4)]
    texts, frames = [text for text, _ in cases], [count for _, count in cases]
    inputs = batch(texts, frames)
    losses, feasible = (x.detach() for x in CTC()(*inputs))
    probabilities = inputs[0].detach().double().softmax(2)
    impossible = 0
    for number, (text, count) in enumerate(cases):
        p = likelihood(probabilities[number, :count], text)
        assert bool(feasible[number]) == (p > 0.0)
        impossible += p == 0.0
        expected = -math.log(p) / max(len(text), 1) if p else 0.0
        assert float(losses[number]) == pytest.approx(expected, abs=1e-5)
    assert 20 < impossible < len(cases) - 20


def test_needed_frames_are_tokens_and_equal_neighbours() -> None:
    tokens = torch.tensor([[1, 1, 1, 2], [1, 2, 1, 2], [3, 3, 3, 3], [3, 3, 3, 3]])
    assert needed_frames(tokens, torch.tensor([4, 4, 2, 0])).tolist() == [6, 4, 3, 0]


def test_an_impossible_transcript_has_no_gradient_and_spoils_no_other() -> None:
    texts = [(1, 1), (1, 2), (2,) * 9, (), (1, 2, 1)]
    logits, frames, tokens, lengths = batch(texts, [2, 2, 9, 5, 2])
    losses, feasible = CTC()(logits, frames, tokens, lengths)
    assert feasible.tolist() == [False, True, False, True, False]
    assert losses[~feasible].tolist() == [0.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all()
    assert not gradient[~feasible].any()
    assert gradient[1, :2].any()
    assert gradient[3, :5].any()


def test_losses_are_torchs_where_there_is_a_path() -> None:
    torch.manual_seed(1)
    lengths, frames = torch.tensor([12, 1, 7, 20]), torch.tensor([60, 30, 44, 50])
    tokens = torch.randint(1, 30, (4, 20))
    logits = torch.randn(4, 60, 30, requires_grad=True)
    losses, feasible = CTC()(logits, frames, tokens, lengths)
    assert feasible.all()
    expected = torch.nn.CTCLoss(reduction="none")(
        logits.log_softmax(2).transpose(0, 1), tokens, frames, lengths
    )
    torch.testing.assert_close(losses * lengths, expected)
    torch.testing.assert_close(
        torch.autograd.grad((losses * lengths).sum(), logits),
        torch.autograd.grad(expected.sum(), logits),
    )


def test_the_gradient_is_that_of_finite_differences() -> None:
    logits, frames, tokens, lengths = batch([(1, 2), (2, 2), (1,)], [4, 3, 2])
    (gradient,) = torch.autograd.grad(CTC()(logits, frames, tokens, lengths)[0].sum(), logits)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5))
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (
            CTC()(logits + sign * step * direction, frames, tokens, lengths)[0].double().sum()
            for sign in (1, -1)
        )
    expected = float((ahead - behind) / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-3)


def test_an_items_loss_and_gradient_are_those_alone() -> None:
    texts = [(1, 2, 2), (2, 2, 2, 2), (), (1,)]
    logits, frames, tokens, lengths = batch(texts, [9, 5, 3, 1])
    losses, feasible = CTC()(logits, frames, tokens, lengths)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    for number, (text, count) in enumerate(zip(texts, frames.tolist(), strict=True)):
        own = logits.detach()[number : number + 1, :count].clone().requires_grad_()
        alone, possible = CTC()(
            own,
            frames[number : number + 1],
            torch.tensor([text]).long(),
            lengths[number : number + 1],
        )
        assert bool(possible) == bool(feasible[number])
        torch.testing.assert_close(alone[0], losses[number], atol=1e-6, rtol=0)
        (expected,) = torch.autograd.grad(alone.sum(), own)
        torch.testing.assert_close(gradient[number, :count], expected[0], atol=1e-6, rtol=0)
        assert not gradient[number, count:].any()


def test_nothing_behind_an_item_counts() -> None:
    logits, frames, tokens, lengths = batch([(1, 2), (2,)], [6, 3])
    expected = CTC()(logits, frames, tokens, lengths)[0]
    other = logits.detach().clone()
    other[1, 3:] = 1e4
    tokens = tokens.clone()
    tokens[1, 1:] = -7
    assert torch.equal(CTC()(other, frames, tokens, lengths)[0], expected)


def test_half_precision_is_scored_in_float32() -> None:
    logits, frames, tokens, lengths = batch([(1, 2, 1), (2, 1)], [12, 9])
    half = logits.detach().bfloat16().requires_grad_()
    losses, _ = CTC()(half, frames, tokens, lengths)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, CTC()(half.detach().float(), frames, tokens, lengths)[0])
    losses.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(CTC()(half, frames, tokens, lengths)[0], losses)


def test_empty_transcripts_alone() -> None:
    """The chance of blanks only; also where no item has a token, and with no item at all."""
    logits, frames = torch.randn(2, 5, 4), torch.tensor([5, 3])
    empty, lengths = torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0])
    losses, feasible = CTC()(logits, frames, empty, lengths)
    blank = -logits.log_softmax(2)[:, :, 0]
    torch.testing.assert_close(losses, torch.stack((blank[0].sum(), blank[1, :3].sum())))
    assert feasible.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tokens": [[1, 3]]},
            r"tokens must lie in 1 to 2 \(0 is the blank\), got 3 as token 1 of item 0",
        ),
        ({"tokens": [[0, 1]]}, "got 0 as token 0 of item 0"),
        ({"tokens": [[-1, 1]]}, "got -1 as token 0 of item 0"),
        ({"frames": [5]}, r"frames must lie in 1 to 4, got \[5\]"),
        ({"frames": [0]}, r"frames must lie in 1 to 4, got \[0\]"),
        ({"token_lengths": [3]}, r"token_lengths must lie in 0 to 2, got \[3\]"),
        ({"token_lengths": [-1]}, r"token_lengths must lie in 0 to 2, got \[-1\]"),
        ({"frames": [4, 4]}, r"expected logits \(B, T, V\), .* got \[\(1, 4, 3\), \(2,\)"),
        ({"tokens": [1, 2]}, r"expected logits \(B, T, V\), frames \(B,\), tokens \(B, U\)"),
    ],
)
def test_what_cannot_be_scored_is_named(change: dict[str, list[int]], message: str) -> None:
    options = {"frames": [4], "tokens": [[1, 2]], "token_lengths": [2]} | change
    with pytest.raises(ValueError, match=message):
        CTC()(torch.zeros(1, 4, 3), *(torch.tensor(value) for value in options.values()))
