"""A rule: what must hold of every task."""

from collections.abc import Callable
from dataclasses import dataclass

from resdomains.testing.bench import Bench


class Broken(Exception):
    """A rule does not hold."""


@dataclass(frozen=True)
class Rule:
    """A named rule.

    Args:
        name: What must hold.
        run: Raises `Broken` where it does not.
        advice: What the task's author must do then.
        slow: Whether it starts several processes that train.
    """

    name: str
    run: Callable[[Bench], None]
    advice: str
    slow: bool


RULES: list[Rule] = []


def rule(
    advice: str, *, slow: bool = False
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Return a decorator that makes a function a rule under its own name."""

    def add(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        RULES.append(Rule(run.__name__, run, advice, slow))
        return run

    return add
