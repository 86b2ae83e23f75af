"""Named checks of a task, alone, together, or one pytest id each."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resdomains.plugins import TaskPlugin
from resdomains.testing.bench import Bench, Whole
from resdomains.testing.case import TaskCase
from resdomains.testing.rules import RULES, Broken, Rule

if TYPE_CHECKING:
    import pytest


class CheckFailed(AssertionError):
    """A task breaks the contract; the message says how, and what its author must do."""


@dataclass(frozen=True)
class Check:
    """One rule applied to one case.

    Attributes: `name`, the rule's; `slow`, whether it starts several processes; `whole`, the run that a case's checks
    share.
    """

    case: TaskCase
    rule: Rule
    whole: Whole

    @property
    def name(self) -> str:
        """What must hold, in words that make a test id."""
        return self.rule.name

    @property
    def slow(self) -> bool:
        """Whether it takes more than some ten seconds."""
        return self.rule.slow

    def __call__(self, folder: Path) -> None:
        """Check in an empty folder.

        Raises:
            CheckFailed: With what is wrong and what to do.
        """
        try:
            self.rule.run(Bench(self.case, folder, self.whole))
        except Broken as broken:
            found, cause = str(broken), broken.__cause__
        except Exception as error:  # whatever a task raises, its author is told which rule it broke
            found, cause = f"raised {type(error).__name__}: {error}", error
        else:
            return
        raise CheckFailed(
            f"{self.case.plugin.name}: {self.name}: {found}\n  what to do: {self.rule.advice}"
        ) from cause

    def __str__(self) -> str:
        return self.name


def checks(task: TaskCase | TaskPlugin | str) -> Iterator[Check]:
    """Yield the checks of a task, but those that its case exempts.

    Raises:
        ValueError: If an exemption names no check.
    """
    case = TaskCase.of(task)
    names = {rule.name for rule in RULES}
    unknown = sorted(set(case.exempt) - names)
    if unknown:
        raise ValueError(
            f"exempt names no check: {', '.join(unknown)}; checks: {', '.join(sorted(names))}"
        )
    whole = Whole()
    for rule in RULES:
        if rule.name not in case.exempt:
            yield Check(case, rule, whole)


def check_task(task: TaskCase | TaskPlugin | str, *, slow: bool = True) -> list[str]:
    """Check that a task keeps the contract; return the names of the checks that it passed.

    Args:
        task: A case with material for all checks. For a plugin or its name alone, the checks that need material fail
            and say which.
        slow: Whether to run the checks that start several processes, too.

    Raises:
        CheckFailed: With all that is wrong.
    """
    passed, failed = [], []
    for check in checks(task):
        if check.slow and not slow:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(Path(folder))
            except CheckFailed as error:
                failed.append(error)
            else:
                passed.append(check.name)
    if failed:
        raise CheckFailed(
            f"{len(failed)} of {len(failed) + len(passed)} checks failed\n\n"
            + "\n\n".join(str(error) for error in failed)
        ) from failed[0]
    return passed


def parametrize_with_checks(*tasks: TaskCase | TaskPlugin | str) -> "pytest.MarkDecorator":
    """Return a pytest decorator that runs a test function's `check` argument through all checks.

    Slow checks carry the mark `slow`; register it in the project's pytest settings.
    """
    import pytest

    cases = [TaskCase.of(task) for task in tasks]
    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(
                check,
                id=check.name if len(cases) == 1 else f"{case.plugin.name}-{check.name}",
                marks=[pytest.mark.slow] if check.slow else [],
            )
            for case in cases
            for check in checks(case)
        ],
    )
