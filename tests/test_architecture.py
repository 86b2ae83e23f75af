"""The design's arrows, read from every file's imports; none of the files is imported.

Configs name tasks, tasks import `resdomains`, `resdomains.core` imports torch alone.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
INSTALLED_NAMES = {"tasks": "resdomains_tasks", "configs": "resdomains_configs"}
FOLDERS = ("resdomains", "tasks", "configs", "tests")

# What a command that needs no torch may load on its way: `resdomains --help`, `tasks`, `configs`.
LIGHT_LIBRARIES = {*sys.stdlib_module_names, "rich", "yaml"}
LIGHT_MODULES = re.compile(
    r"resdomains\.(cli\.main|plugins)|resdomains_tasks\.\w+\.plugin|resdomains_configs(\..*)?"
)
# What tasks of a domain share and only they load: it may load what the domain's extra installs.
OF_DOMAINS = {"resdomains.vision": "vision"}
# What may load what an extra installs, as whoever loads it must expect.
OF_EXTRAS = {**OF_DOMAINS, "resdomains.comparing": "compare"}
MAY_IMPORT_CLI = ("resdomains.cli", "resdomains.testing", "resdomains.__main__")


@dataclass(frozen=True)
class Import:
    """`target` is the dotted name of a module or of something in one."""

    target: str
    line: int
    on_load: bool  # runs when the importing module is loaded: outside functions and TYPE_CHECKING


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    imports: tuple[Import, ...]


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def top(name: str) -> str:
    return name.partition(".")[0]


def read_tree(root: Path) -> dict[str, Module]:
    """Every Python file of the project by the name it is imported under."""
    modules = {}
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        folder, *rest = path.relative_to(root).with_suffix("").parts
        parts = [INSTALLED_NAMES.get(folder, folder), *rest]
        is_package = parts[-1] == "__init__"
        if is_package:
            parts.pop()
        package = parts if is_package else parts[:-1]
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        modules[".".join(parts)] = Module(".".join(parts), path, tuple(imports_in(tree, package)))
    return modules


def imports_in(node: ast.AST, package: list[str], on_load: bool = True) -> Iterator[Import]:
    """All imports below a node; those of a relative import are spelled out from `package`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, on_load)
        elif isinstance(child, ast.ImportFrom):
            above = package[: len(package) - child.level + 1] if child.level else []
            base = [*above, *(child.module.split(".") if child.module else [])]
            for alias in child.names:
                name = base if alias.name == "*" else [*base, alias.name]
                yield Import(".".join(name), child.lineno, on_load)
        elif isinstance(child, ast.Call) and (target := constant_import(child)):
            yield Import(target, child.lineno, on_load)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from imports_in(ast.Module([part], []), package, on_load=False)
            yield from imports_in(ast.Module(child.orelse, []), package, on_load)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_in(child, package, on_load and not function)


def constant_import(call: ast.Call) -> str | None:
    """The name in `import_module("name")` or `__import__("name")`."""
    called = ast.unparse(call.func).rpartition(".")[2]
    if called in ("import_module", "__import__") and call.args:
        match call.args[0]:
            case ast.Constant(value=str(name)) if not name.startswith("."):
                return name
    return None


def verdict(importer: str, target: str) -> str | None:
    """Why `importer` may not import `target`, or None if it may."""
    if top(target) in INSTALLED_NAMES:
        return f"import it as {INSTALLED_NAMES[top(target)]}: the folder's name is not installed"
    if top(target) == "lightning":
        return "the package is pytorch_lightning: releases under the other name were malicious"
    if within(importer, "resdomains.core"):
        allowed = (
            within(target, "resdomains.core", "torch") or top(target) in sys.stdlib_module_names
        )
        return None if allowed else "core imports torch and the standard library alone"
    if within(importer, "resdomains") and within(target, *INSTALLED_NAMES.values()):
        return "resdomains knows no task and no config"
    if within(target, *OF_DOMAINS) and not within(
        importer, *OF_DOMAINS, "resdomains_tasks", "tests"
    ):
        return "only tasks load what tasks of a domain share"
    if within(target, "resdomains.cli") and within(importer, "resdomains", "resdomains_tasks"):
        return (
            None if within(importer, *MAY_IMPORT_CLI) else "nothing below the launcher imports it"
        )
    if within(importer, "resdomains_tasks") and within(target, "resdomains_tasks"):
        own = ".".join(importer.split(".")[:2])
        return None if within(target, own) else "no task imports another"
    return None


def wrong_arrows(modules: Mapping[str, Module]) -> list[str]:
    return [
        f"{module.path}:{found.line}: {module.name} imports {found.target}: {reason}"
        for module in modules.values()
        for found in module.imports
        if (reason := verdict(module.name, found.target))
    ]


def loaded_by(start: str, modules: Mapping[str, Module]) -> dict[str, str]:
    """Every name that loading `start` loads, with the chain of our modules that leads there.

    The packages around `start` count, except around a task's plugin module: a listing loads that
    by its file, whatever its package imports.
    """
    chains: dict[str, str] = {}
    waiting = [(start, start)]
    while waiting:
        name, chain = waiting.pop()
        if name in chains:
            continue
        chains[name] = chain
        # Importing a.b.c runs a and a.b first; where c is a class or function, a.b is its module.
        if name != start or not within(start, "resdomains_tasks"):
            ends = [match.start() for match in re.finditer(r"\.", name)]
            waiting += [(name[:end], chain) for end in ends]
        if name in modules:
            on_load = (found for found in modules[name].imports if found.on_load)
            waiting += [(found.target, f"{chain} -> {found.target}") for found in on_load]
    return chains


def heavy_loads(modules: Mapping[str, Module]) -> list[str]:
    ours = {top(name) for name in modules}
    return [
        f"{chain}: {start} must load in milliseconds, import {top(name)} in a function"
        for start in modules
        if LIGHT_MODULES.fullmatch(start)
        for name, chain in loaded_by(start, modules).items()
        if name == top(name) and name not in LIGHT_LIBRARIES | ours
    ]


def undeclared(modules: Mapping[str, Module], project: Mapping[str, object]) -> list[str]:
    """Imports of packages that an installation need not have.

    What `resdomains` loads must come with the bare install, what a task loads with it or an extra, what tasks
    of a domain share with the domain's extra; an import in a function may be of anything that pyproject.toml names.
    """
    match project:
        case {"dependencies": list(required), "optional-dependencies": dict(extras)}:
            pass
        case _:
            raise TypeError(f"not the [project] table of pyproject.toml: {project!r}")
    bare = names_of(required)
    for_tasks = bare.union(*(names_of(extras[extra]) for extra in extras if extra != "dev"))
    anything = for_tasks | names_of(extras["dev"])
    distributions = packages_distributions()
    problems = []
    for module in modules.values():
        if not within(module.name, "resdomains", *INSTALLED_NAMES.values()):
            continue
        for found in module.imports:
            package = top(found.target)
            if package in sys.stdlib_module_names or package in {top(name) for name in modules}:
                continue
            shared = [extras[e] for name, e in OF_EXTRAS.items() if within(module.name, name)]
            framework = bare.union(*map(names_of, shared))
            ours = framework if top(module.name) == "resdomains" else for_tasks
            declared = ours if found.on_load else anything
            names = {canonicalize_name(name) for name in distributions.get(package, [package])}
            if not names & declared:
                problems.append(
                    f"{module.path}:{found.line}: {package} is not in {sorted(declared)}"
                )
    return problems


def names_of(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@pytest.fixture(scope="module")
def project() -> dict[str, Module]:
    return read_tree(ROOT)


def test_the_reader_finds_the_project(project: dict[str, Module]) -> None:
    assert {"resdomains", "tests.test_architecture"} <= project.keys()
    assert Import("ast", 6, True) in project["tests.test_architecture"].imports


def test_no_arrow_points_the_wrong_way(project: dict[str, Module]) -> None:
    assert wrong_arrows(project) == []


def test_commands_that_need_no_torch_load_none(project: dict[str, Module]) -> None:
    assert heavy_loads(project) == []


def test_every_imported_package_is_declared(project: dict[str, Module]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert undeclared(project, settings["project"]) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("resdomains/core/a.py", "import numpy", "imports numpy: core imports torch"),
        ("resdomains/core/a.py", "from ..training import b", "training.b: core imports"),
        ("resdomains/core/n/__init__.py", "from .. import c", None),
        (
            "resdomains/core/n/__init__.py",
            "from ... import c",
            "resdomains.c: core imports",
        ),
        ("resdomains/core/a.py", "import torch.nn, math\nfrom .parts import B", None),
        ("resdomains/x.py", "def f():\n    import resdomains_tasks.rl", "knows no task"),
        ("resdomains/x.py", "if TYPE_CHECKING:\n    import resdomains_tasks", "knows no task"),
        ("resdomains/x.py", "importlib.import_module('resdomains_tasks.rl')", "knows no task"),
        ("resdomains/training/a.py", "from resdomains import cli", "nothing below the launcher"),
        ("resdomains/training/a.py", "from resdomains.vision import resize", "only tasks load"),
        ("tasks/a/x.py", "from resdomains.vision import resize", None),
        ("resdomains/testing.py", "from resdomains import cli", None),
        ("tasks/a/x.py", "from resdomains_tasks.b import B", "no task imports another"),
        ("tasks/a/x.py", "from ..b import B", "no task imports another"),
        ("tasks/a/x.py", "from . import b\nfrom resdomains.core import B", None),
        ("tests/test_x.py", "import tasks.a", "import it as resdomains_tasks"),
        ("tests/test_x.py", "from configs import a", "import it as resdomains_configs"),
        ("tests/test_x.py", "from lightning import Trainer", "pytorch_lightning"),
    ],
)
def test_a_planted_arrow_is_seen(
    tmp_path: Path, file: str, source: str, complaint: str | None
) -> None:
    plant(tmp_path, {file: source})
    found = wrong_arrows(read_tree(tmp_path))
    if complaint is None:
        assert found == []
    else:
        [only] = found
        assert complaint in only
        assert file in only


@pytest.mark.parametrize(
    ("source", "heavy"),
    [
        ("import torch", True),
        ("class A:\n    import torch", True),
        ("try:\n    import torch\nexcept ImportError:\n    pass", True),
        ("from resdomains.far import thing", True),
        ("from resdomains import far", True),
        ("def f():\n    from resdomains import far", False),
        ("if TYPE_CHECKING:\n    import torch", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import torch", True),
        ("import json, yaml", False),
    ],
)
def test_a_planted_heavy_import_is_seen(tmp_path: Path, source: str, heavy: bool) -> None:
    far = "from pytorch_lightning import Trainer\ndef thing(): ..."
    plant(tmp_path, {"resdomains/plugins.py": source, "resdomains/far.py": far})
    assert bool(heavy_loads(read_tree(tmp_path))) == heavy


def test_a_package_that_runs_first_is_seen(tmp_path: Path) -> None:
    plant(tmp_path, {"resdomains/cli/__init__.py": "from .far import f"})
    plant(tmp_path, {"resdomains/cli/far.py": "import torch", "resdomains/cli/main.py": ""})
    [complaint] = heavy_loads(read_tree(tmp_path))
    assert "resdomains.cli.main -> resdomains.cli.far.f -> torch" in complaint


def test_a_plugin_module_is_light_without_its_package(tmp_path: Path) -> None:
    plant(tmp_path, {"tasks/a/__init__.py": "import torch", "tasks/a/plugin.py": "import json"})
    assert heavy_loads(read_tree(tmp_path)) == []
    plant(tmp_path, {"tasks/a/plugin.py": "from .b import C", "tasks/a/b.py": "C = 1"})
    [complaint] = heavy_loads(read_tree(tmp_path))
    assert "resdomains_tasks.a.plugin -> resdomains_tasks.a.b.C -> torch" in complaint


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("resdomains/x.py", "import sklearn", "sklearn is not in"),
        ("resdomains/x.py", "def f():\n    import sklearn", None),
        ("tasks/a/x.py", "import sklearn, numpy", None),
        ("tasks/a/x.py", "import pytest", "pytest is not in"),
        ("tasks/a/x.py", "def f():\n    import nowhere", "nowhere is not in"),
    ],
)
def test_a_planted_undeclared_import_is_seen(
    tmp_path: Path, file: str, source: str, complaint: str | None
) -> None:
    extras = {"vision": ["scikit-learn>=1.6"], "dev": ["pytest"]}
    plant(tmp_path, {file: source})
    found = undeclared(
        read_tree(tmp_path), {"dependencies": ["numpy>=2"], "optional-dependencies": extras}
    )
    assert [complaint in text for text in found if complaint] == [True] * (complaint is not None)
    assert len(found) == (complaint is not None)


def plant(root: Path, files: Mapping[str, str]) -> None:
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source, encoding="utf-8")
