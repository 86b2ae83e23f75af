import subprocess
import sys
from importlib import import_module
from pathlib import Path

from resdomains.training import DataModule, Task
from resdomains_tasks.image_classification.plugin import plugin


def test_every_name_leads_to_its_class() -> None:
    for name, base in (
        (plugin.task, Task),
        *((value, DataModule) for value in plugin.data.values()),
    ):
        module, _, attribute = name.partition(":")
        assert issubclass(getattr(import_module(module), attribute), base)


def test_the_plugin_file_loads_without_torch() -> None:
    module = import_module("resdomains_tasks.image_classification.plugin")
    assert module.__file__ is not None
    program = (
        f"import runpy, sys; runpy.run_path({str(Path(module.__file__))!r}); "
        "sys.exit(bool({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_classes_have_the_paths_that_configs_use() -> None:
    package = import_module("resdomains_tasks.image_classification")
    assert sorted(package.__all__) == package.__all__
    for name in package.__all__:
        assert hasattr(package, name)
