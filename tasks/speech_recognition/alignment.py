"""When each word was said."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor
from torchaudio.functional import forced_align

from .normalization import SEPARATOR
from .tokens import Tokenizer

_BLANK = 0
_PIECE = 2000  # frames
_LEAST = -1e5


def word_times(
    log_probs: Tensor, ids: Sequence[int], tokenizer: Tokenizer, seconds_per_frame: float
) -> list[dict[str, Any]]:
    """Return each word with the time at which it was said: that of its tokens on the most probable path.

    A network trained with connectionist temporal classification names a token for few frames and a blank for the rest,
    so that times are those of the tokens' peaks, not of where the sound begins and ends.

    The path takes frames x tokens bytes and steps. Long recordings are therefore aligned in pieces of some 2000 frames,
    cut where a frame's most probable token is the blank, between two tokens that greedy decoding finds there, too.

    Args:
        log_probs: (T, V) log-probabilities of the frames that count.
        ids: What was decoded of them, without blanks.
        tokenizer: Says how words are made of pieces.
        seconds_per_frame: Length of a frame, in seconds.

    Returns:
        Of each word `word`, `start` and `end` in seconds, and `probability`: the geometric mean over its tokens of each
        token's probability, itself the geometric mean over the token's frames. Pieces that only part words are left
        out of both. Empty where nothing was decoded, or more than fits into the frames.
    """
    pieces = tokenizer.pieces
    words: list[list[tuple[int, int, int, float]]] = []
    parted = True
    for span in _spans(log_probs.detach().float().cpu(), list(ids)):
        piece = pieces[span[0]]
        parted |= piece.startswith(SEPARATOR)
        if piece == SEPARATOR:
            continue
        if parted:
            words.append([])
            parted = False
        words[-1].append(span)
    return [
        {
            "word": tokenizer.decode([token for token, *_ in word]),
            "start": round(word[0][1] * seconds_per_frame, 4),
            "end": round(word[-1][2] * seconds_per_frame, 4),
            "probability": float(torch.tensor([score for *_, score in word]).mean().exp()),
        }
        for word in words
    ]


def _spans(log_probs: Tensor, ids: list[int]) -> list[tuple[int, int, int, float]]:
    """Return for each token its id, its first frame, the one behind its last, and its mean log-probability."""
    found = []
    done, passed = 0, 0
    for frame, token in [*_cuts(log_probs, ids), (len(log_probs), len(ids))]:
        part = _aligned(log_probs[passed:frame], ids[done:token])
        if part is None:
            return []
        found += [(i, first + passed, behind + passed, score) for i, first, behind, score in part]
        passed, done = frame, token
    return found


def _aligned(log_probs: Tensor, ids: list[int]) -> list[tuple[int, int, int, float]] | None:
    """Align a piece; None where the tokens do not fit into its frames."""
    if not ids:
        return []
    repeats = sum(a == b for a, b in pairwise(ids))
    if len(log_probs) < len(ids) + repeats:
        return None
    # forced_align loses tokens where no path is possible.
    possible = log_probs.nan_to_num(nan=_LEAST, neginf=_LEAST)
    path, scores = forced_align(possible[None], torch.tensor([ids]), blank=_BLANK)
    values, counts = torch.unique_consecutive(path[0], return_counts=True)
    ends = counts.cumsum(0).tolist()
    return [
        (token, end - count, end, float(scores[0, end - count : end].mean()))
        for token, count, end in zip(values.tolist(), counts.tolist(), ends, strict=True)
        if token != _BLANK
    ]


def _cuts(log_probs: Tensor, ids: list[int]) -> list[tuple[int, int]]:
    """Return where to cut a long recording: frames, and how many tokens come before each."""
    if len(log_probs) <= _PIECE:
        return []
    best = log_probs.argmax(1)
    begins = best != _BLANK
    begins[1:] &= best[1:] != best[:-1]
    heard = best[begins].tolist()
    same: dict[int, int] = {}
    for block in Levenshtein.opcodes(heard, ids):
        if block.tag == "equal":
            same.update(
                zip(
                    range(block.src_start, block.src_end),
                    range(block.dest_start, block.dest_end),
                    strict=True,
                )
            )
    before = begins.cumsum(0).tolist()
    cuts: list[tuple[int, int]] = []
    last = 0
    for frame in (best == _BLANK).nonzero()[:, 0].tolist():
        token = same.get(before[frame] - 1)
        if frame - last < _PIECE or token is None or same.get(before[frame]) != token + 1:
            continue
        cuts.append((frame, token + 1))
        last = frame
    return cuts
