"""What must hold of every task. Each rule has a name, a function that raises `Broken`, and advice."""

# Loading a module adds its rules.
from resdomains.testing.rules import answering, building, computing, running  # noqa: F401
from resdomains.testing.rules.rule import RULES, Broken, Rule

__all__ = ["RULES", "Broken", "Rule"]
