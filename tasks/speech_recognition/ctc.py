"""Connectionist temporal classification: how likely a transcript is, over all its alignments to the frames."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CTC(nn.Module):
    """`-log p(tokens | frames) / max(1, number of tokens)` of each item (Graves et al. 2006); the blank is token 0.

    Computed in float32, also under autocast. A transcript that its frames cannot hold, for it takes a frame for each
    token and one for the blank between two equal neighbours, has loss 0 and no gradient, and is reported.
    """

    def forward(
        self, logits: Tensor, frames: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of each item, and which items have one.

        Args:
            logits: (B, T, V) scores of the tokens.
            frames: (B,) frames of each item, 1 to T.
            tokens: (B, U) ids; what stands behind an item's own does not matter.
            token_lengths: (B,) tokens of each item, 0 to U.

        Returns:
            (B,) float32 losses, and (B,) bool: True where the frames can hold the transcript.

        Raises:
            ValueError: If a shape does not fit, a length is out of range, or a token is the blank or not one of the V.
        """
        _check(logits, frames, tokens, token_lengths)
        feasible = frames >= needed_frames(tokens, token_lengths)
        losses = F.ctc_loss(
            logits.float().log_softmax(2).transpose(0, 1),
            tokens,
            frames,
            # An impossible transcript is scored as the empty one: its loss is finite, and taken out below.
            token_lengths.where(feasible, 0),
            reduction="none",
        )
        return losses.masked_fill(~feasible, 0.0) / token_lengths.clamp_min(1), feasible


def needed_frames(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Return the fewest frames that can hold each transcript, (B,): its tokens and its equal neighbours.

    Args:
        tokens: (B, U) ids.
        token_lengths: (B,) tokens of each item.
    """
    repeated = (tokens[:, 1:] == tokens[:, :-1]) & _own(tokens, token_lengths)[:, 1:]
    return token_lengths + repeated.sum(1)


def _own(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Return (B, U), True where an item has a token."""
    return torch.arange(tokens.shape[1], device=tokens.device) < token_lengths[:, None]


def _check(logits: Tensor, frames: Tensor, tokens: Tensor, token_lengths: Tensor) -> None:
    if (
        logits.ndim != 3
        or tokens.ndim != 2
        or any(x.shape[:1] != logits.shape[:1] for x in (frames, tokens, token_lengths))
    ):
        shapes = [tuple(x.shape) for x in (logits, frames, tokens, token_lengths)]
        raise ValueError(
            f"expected logits (B, T, V), frames (B,), tokens (B, U) and token_lengths (B,), got {shapes}"
        )
    size, steps, vocabulary = tokens.shape[1], logits.shape[1], logits.shape[2]
    for name, values, low, high in (
        ("frames", frames, 1, steps),
        ("token_lengths", token_lengths, 0, size),
    ):
        if len(values) and not low <= int(values.min()) <= int(values.max()) <= high:
            raise ValueError(f"{name} must lie in {low} to {high}, got {values.tolist()}")
    # torch returns a finite loss for an id that does not exist.
    wrong = ((tokens < 1) | (tokens >= vocabulary)) & _own(tokens, token_lengths)
    if bool(wrong.any()):
        item, place = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"tokens must lie in 1 to {vocabulary - 1} (0 is the blank), got {int(tokens[item, place])} "
            f"as token {place} of item {item}"
        )
