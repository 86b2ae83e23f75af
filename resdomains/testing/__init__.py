"""What every task must survive, built in or third-party: `check_task`, and the same checks for pytest.

A task's test file is three lines:

    from resdomains.testing import TaskCase, parametrize_with_checks

    @parametrize_with_checks(TaskCase(plugin=plugin, config="audio_tagging/tiny", inputs=...))
    def test_contract(check, tmp_path):
        check(tmp_path)
"""

from resdomains.testing.case import BadArgument, BadFile, TaskCase
from resdomains.testing.check import Check, CheckFailed, check_task, checks, parametrize_with_checks

__all__ = [
    "BadArgument",
    "BadFile",
    "Check",
    "CheckFailed",
    "TaskCase",
    "check_task",
    "checks",
    "parametrize_with_checks",
]
