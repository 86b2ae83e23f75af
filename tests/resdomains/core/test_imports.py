import ast
import sys
from pathlib import Path

import resdomains.core


def test_core_imports_torch_alone() -> None:
    allowed = {"torch", "resdomains", *sys.stdlib_module_names}
    files = list(Path(resdomains.core.__file__).parent.rglob("*.py"))
    assert len(files) > 15
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or "."]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in modules:
                top, _, rest = module.partition(".")
                assert top in allowed, f"{file.name} imports {module}"
                assert top != "resdomains" or rest.startswith("core"), f"{file.name}: {module}"


def test_the_sum_is_written_once() -> None:
    core = Path(resdomains.core.__file__).parent
    callers = [f.name for f in core.rglob("*.py") if "self.merge(self.shortcut" in f.read_text()]
    assert callers == ["residual.py"]


def test_masks_alone_ask_whether_positions_are_masked() -> None:
    core = Path(resdomains.core.__file__).parent
    askers = [f.name for f in core.rglob("*.py") if "valid is" in f.read_text().replace("``", "")]
    assert askers == ["masks.py"]
