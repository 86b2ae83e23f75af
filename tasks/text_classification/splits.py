"""Which texts of one file train, validate and test."""

import hashlib
from abc import ABC, abstractmethod

from resdomains.schema import Split
from resdomains.training.holding_out import held_out

from .texts import Texts


class Splitting(ABC):
    """Chooses which texts are held out. Equal texts are never on both sides.

    Args:
        val: Share that validates.
        test: Share that tests.
    """

    def __init__(self, val: float = 0.1, test: float = 0.1) -> None:
        for name, share in (("val", val), ("test", test)):
            if not 0.0 <= share < 1.0:
                raise ValueError(f"{name} is a share of the texts in [0, 1), got {share}")
        if val + test >= 1.0:
            raise ValueError(f"val {val} and test {test} leave nothing to train on")
        self.val, self.test = val, test

    @abstractmethod
    def split(self, texts: Texts, *, with_test: bool) -> list[Split]:
        """Return the split of each text.

        Args:
            texts: All texts.
            with_test: Whether texts are held out for the test; if not, only for validation.
        """


class RandomSplit(Splitting):
    """Hold out a share of each class, by a hash of the text: whatever the machine, the order and the run's seed.

    Args:
        val: Share that validates.
        test: Share that tests.
        seed: Another seed holds out other texts. It is not the run's: runs of several seeds share a test split.
    """

    def __init__(self, val: float = 0.1, test: float = 0.1, seed: int = 0) -> None:
        super().__init__(val, test)
        self.seed = seed

    def split(self, texts: Texts, *, with_test: bool) -> list[Split]:
        # Several labels or a number are no groups.
        groups = [target if isinstance(target, str) else "" for target in texts.targets]
        names = [f"{self.seed}\0{key}" for key in _keys(texts)]
        return held_out(names, self.val, self.test if with_test else 0.0, groups=groups)


class HashSplit(Splitting):
    """Hold out a text by itself alone: whatever the other texts are.

    The MD5 of the text in UTF-8, taken as a number, modulo 10 (or 100 or 1000, as the shares need): the last residues
    test, those before validate. With shares of a tenth each, 0 to 7 train, 8 validates, 9 tests.

    Args:
        val: Share that validates, in whole thousandths.
        test: Share that tests, in whole thousandths.
    """

    def __init__(self, val: float = 0.1, test: float = 0.1) -> None:
        super().__init__(val, test)
        for modulus in (10, 100, 1000):
            counts = [share * modulus for share in (val, test)]
            if all(abs(count - round(count)) < 1e-6 for count in counts):
                self._modulus, self._val, self._test = modulus, *map(round, counts)
                return
        raise ValueError(f"val and test must be whole thousandths, got {val} and {test}")

    def split(self, texts: Texts, *, with_test: bool) -> list[Split]:
        return [self._of(key, with_test) for key in _keys(texts)]

    def _of(self, key: str, with_test: bool) -> Split:
        # Not for security: this is the rule that splits of some data sets are published by.
        digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        residue = int(digest, 16) % self._modulus
        if residue >= self._modulus - self._test:
            return "test" if with_test else "train"
        return "val" if residue >= self._modulus - self._test - self._val else "train"


def _keys(texts: Texts) -> list[str]:
    """What makes a text itself: with the second text, where items are two."""
    if texts.pairs is None:
        return texts.texts
    return [f"{text}\0{pair}" for text, pair in zip(texts.texts, texts.pairs, strict=True)]
