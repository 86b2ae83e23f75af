"""From the probabilities of every frame to tokens. Id 0 is the blank of connectionist temporal classification."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .normalization import SEPARATOR
from .tokens import Tokenizer

_BLANK = 0
_Numbers = NDArray[np.float64]
_Ids = NDArray[np.int64]


class Decoder(ABC):
    """What makes tokens of log-probabilities; an utterance's tokens do not depend on its batch."""

    @abstractmethod
    def bind(self, tokenizer: Tokenizer) -> None:
        """Take the vocabulary that is decoded with; called once, when the task is built.

        Raises:
            ValueError: If an option does not fit the vocabulary.
        """

    @abstractmethod
    def decode(self, log_probs: Tensor, frames: Tensor) -> list[list[int]]:
        """Return the ids of each utterance, without blanks.

        Args:
            log_probs: (B, T, V) log-probabilities.
            frames: (B,) how many frames of each utterance count.
        """


class Greedy(Decoder):
    """The most probable token of each frame; repeats are one token, blanks are none."""

    def bind(self, tokenizer: Tokenizer) -> None:
        """Take the vocabulary, of which nothing is needed."""

    def decode(self, log_probs: Tensor, frames: Tensor) -> list[list[int]]:
        best = log_probs.argmax(2)
        kept = best != _BLANK
        kept[:, 1:] &= best[:, 1:] != best[:, :-1]
        kept &= torch.arange(best.shape[1], device=best.device) < frames[:, None]
        ids, counts = best[kept].tolist(), kept.sum(1).tolist()
        ends = np.cumsum(counts).tolist()
        return [ids[end - count : end] for count, end in zip(counts, ends, strict=True)]


class PrefixBeam(Decoder):
    """Prefix beam search: the text of the highest probability, summed over its paths (Hannun et al. 2014).

    After each frame the `width` most probable beginnings are kept, so that a sum holds the paths that were kept; where
    texts are equal to tenths of a nat, in noise, another may be the most probable. On one core, 400 frames of 30 tokens
    take 20 to 50 ms with a width of 16; time grows with the frames, and less than in proportion with width and tokens.

    A hotword raises the log-probability of a beginning by `bonus` for each of its pieces, from where a word begins; if
    the word then goes on otherwise, or ends too early, the bonus is taken back. A piece that only parts two words has
    none.

    Args:
        width: Beginnings that are kept.
        hotwords: Words that the recordings are known to hold, such as names; written as transcripts are, case and
            all that normalisation removes aside.
        bonus: What each piece of a hotword adds, in natural logarithms; usual values are 0.5 to 3.
        min_probability: Tokens below this in a frame are not appended there, except the most probable.

    Raises:
        ValueError: If a number cannot be used.
    """

    def __init__(
        self,
        width: int = 16,
        hotwords: Sequence[str] = (),
        bonus: float = 1.0,
        min_probability: float = 1e-4,
    ) -> None:
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        if not 0.0 <= bonus < math.inf:
            raise ValueError(f"bonus must be a finite number of at least 0, got {bonus}")
        if not 0.0 <= min_probability < 1.0:
            raise ValueError(
                f"min_probability must be at least 0 and below 1, got {min_probability}"
            )
        if isinstance(hotwords, str):
            raise ValueError(f"hotwords must be a list of words, got the text {hotwords!r}")
        self.width, self.hotwords, self.bonus = width, list(hotwords), bonus
        self.min_probability = min_probability
        self._bonuses: _Bonuses | None = None

    def bind(self, tokenizer: Tokenizer) -> None:
        """Spell the hotwords.

        Raises:
            ValueError: If one is not a word, or cannot be spelled.
        """
        self._bonuses = _bonuses(tokenizer, self.hotwords, self.bonus)

    def decode(self, log_probs: Tensor, frames: Tensor) -> list[list[int]]:
        """Return the ids of each utterance, without blanks.

        Raises:
            RuntimeError: If no vocabulary is bound yet.
            ValueError: If a log-probability is NaN.
        """
        if self._bonuses is None:
            raise RuntimeError("PrefixBeam has no vocabulary yet; call bind(tokenizer) first")
        numbers = log_probs.detach().double().cpu().numpy()
        return [
            self._search(own[:count], self._bonuses)
            for own, count in zip(numbers, frames.tolist(), strict=True)
        ]

    def _search(self, log_probs: _Numbers, bonuses: "_Bonuses") -> list[int]:
        """Return the best text of (T, V) log-probabilities."""
        if np.isnan(log_probs).any():
            raise ValueError("log_probs holds NaN, of which no text can be made")
        beam = _Beam(bonuses)
        floor = math.log(self.min_probability) if self.min_probability else -math.inf
        allowed = log_probs >= np.minimum(floor, log_probs.max(1, initial=-math.inf))[:, None]
        allowed[:, _BLANK] = False
        for own, tokens in zip(log_probs, allowed, strict=True):
            beam.advance(own, np.flatnonzero(tokens), self.width)
        return beam.best()


@dataclass(frozen=True)
class _Bonuses:
    """An automaton over tokens that says what each adds to the score. State 0 has left all hotwords, 1 begins a text.

    following: (states, V) the next state.
    added: (states, V) what a token adds.
    closing: (states,) what the end of the text adds.
    """

    following: _Ids
    added: _Numbers
    closing: _Numbers


def _bonuses(tokenizer: Tokenizer, hotwords: Sequence[str], bonus: float) -> _Bonuses:
    pieces = tokenizer.pieces
    lost, start, inside = range(3)  # `inside` is where any word but the first begins
    children: list[dict[int, int]] = [{}, {}, {}]
    owed, complete = [0.0, 0.0, 0.0], [False, False, False]
    for hotword in hotwords:
        for begin, spelled in zip((start, inside), _spellings(tokenizer, hotword), strict=True):
            state = begin
            for token in spelled:
                if token not in children[state]:
                    children[state][token] = len(children)
                    children.append({})
                    owed.append(owed[state] + (bonus if pieces[token] != SEPARATOR else 0.0))
                    complete.append(False)
                state = children[state][token]
            complete[state] = True
    opens = np.array([piece.startswith(SEPARATOR) for piece in pieces])
    following = np.full((len(children), len(pieces)), lost)
    for token, state in children[inside].items():
        following[:, token] = state
    for row, own in zip(following, children, strict=True):
        for token, state in own.items():
            row[token] = state
    owing = np.array(owed)
    # What is owed is a potential: given when a state is entered, returned when it is left for another, unless
    # the word is complete and the next begins.
    returned = np.where(np.array(complete)[:, None] & opens, 0.0, owing[:, None])
    closing = np.where(complete, 0.0, -owing)
    return _Bonuses(following, owing[following] - returned, closing)


def _spellings(tokenizer: Tokenizer, hotword: str) -> tuple[list[int], list[int]]:
    """Return the ids of a word where a text begins, and behind another word.

    Raises:
        ValueError: If it is not a word, or cannot be spelled.
    """
    word = tokenizer.normalise(hotword)
    if len(word.split()) != 1:
        found = "nothing" if not word.strip() else f"the words {word.split()}"
        raise ValueError(f"hotwords: {hotword!r} is {found} after normalisation; give single words")
    try:
        first, twice = tokenizer.encode(word), tokenizer.encode(f"{word} {word}")
    except ValueError as error:
        raise ValueError(
            f"hotwords: {hotword!r} cannot be spelled with the vocabulary: {error}"
        ) from error
    return first, twice[len(first) :]


class _Beam:
    """The most probable beginnings of a text: nodes of a tree whose edges are tokens.

    Beginnings stand in arrays of equal length; the tree, in lists, remembers those that were dropped, so that a text
    that comes back has its old node, and meets the beginnings that go on from it.
    """

    def __init__(self, bonuses: _Bonuses) -> None:
        self.bonuses = bonuses
        # Of every node of the tree.
        self.parents, self.tokens = [-1], [_BLANK]
        self.children: dict[tuple[int, int], int] = {}
        # Of every beginning in the beam.
        self.node: _Ids = np.zeros(1, np.int64)
        self.parent: _Ids = np.full(1, -1)
        self.last: _Ids = np.full(1, _BLANK)
        self.state: _Ids = np.ones(1, np.int64)
        self.gained: _Numbers = np.zeros(1)
        # The log-probabilities of its paths that end with a blank, and with its last token.
        self.blank: _Numbers = np.zeros(1)
        self.token: _Numbers = np.full(1, -np.inf)

    def advance(self, own: _Numbers, tokens: _Ids, width: int) -> None:
        """Read a frame.

        Args:
            own: (V,) log-probabilities.
            tokens: (K,) what may be appended here.
            width: Beginnings that are kept.
        """
        either = np.logaddexp(self.blank, self.token)
        blank = either + own[_BLANK]
        token = self.token + own[self.last]
        # A token that repeats the last needs a blank between them.
        repeats = self.last[:, None] == tokens
        longer = np.where(repeats, self.blank[:, None], either[:, None]) + own[tokens]
        # A beginning that another in the beam becomes by one token is the same text: its paths are added up.
        same, shorter = np.nonzero(self.parent[:, None] == self.node)
        if len(same):
            gone = self.last[same]
            before = np.where(self.last[shorter] == gone, self.blank[shorter], either[shorter])
            token[same] = np.logaddexp(token[same], before + own[gone])
            rows, columns = np.nonzero(gone[:, None] == tokens)
            longer[shorter[rows], columns] = -np.inf
        score = np.empty((len(either), len(tokens) + 1))
        score[:, 0] = np.logaddexp(blank, token)
        score[:, 1:] = longer + self.bonuses.added[self.state[:, None], tokens]
        score += self.gained[:, None]
        rows, columns = np.divmod(_largest(score.ravel(), width), len(tokens) + 1)
        # The chosen as they are, then those among them that become longer.
        place = np.flatnonzero(columns)
        row, column = rows[place], columns[place] - 1
        added = tokens[column]
        self.token, self.blank = token[rows], blank[rows]
        self.token[place], self.blank[place] = longer[row, column], -np.inf
        self.last, self.parent = self.last[rows], self.parent[rows]
        self.last[place], self.parent[place] = added, self.node[row]
        self.gained, state = self.gained[rows], self.state[rows]
        self.gained[place] += self.bonuses.added[state[place], added]
        state[place] = self.bonuses.following[state[place], added]
        self.state, self.node = state, self.node[rows]
        for where, what in zip(place.tolist(), added.tolist(), strict=True):
            self.node[where] = self._child(int(self.node[where]), what)

    def _child(self, node: int, token: int) -> int:
        child = self.children.setdefault((node, token), len(self.tokens))
        if child == len(self.tokens):
            self.parents.append(node)
            self.tokens.append(token)
        return child

    def best(self) -> list[int]:
        """Return the ids of the best text."""
        score = np.logaddexp(self.blank, self.token) + self.gained
        node = int(self.node[int((score + self.bonuses.closing[self.state]).argmax())])
        ids = []
        while node:
            ids.append(self.tokens[node])
            node = self.parents[node]
        return ids[::-1]


def _largest(scores: _Numbers, count: int) -> NDArray[Any]:
    """Return the places of the largest finite scores, at most `count`."""
    places = (
        np.argpartition(scores, -count)[-count:] if len(scores) > count else np.arange(len(scores))
    )
    return places[scores[places] > -np.inf]
