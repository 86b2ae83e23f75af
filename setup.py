"""Derives the packages from the tree; everything else is in pyproject.toml.

`tasks/` and `configs/` are installed under names that collide with nobody's own `tasks.py`.
setuptools can only search for packages under the names they have on disk, and an explicit list
would forget a new folder in the wheel (never in an editable install, which hides the mistake).
"""

from setuptools import find_namespace_packages, setup

FOLDERS = {"resdomains": "resdomains", "resdomains_tasks": "tasks", "resdomains_configs": "configs"}


def packages() -> list[str]:
    """Every folder below the three roots, by its installed name.

    Namespace packages are searched because the folders of `configs/` hold YAML alone.
    """
    found: list[str] = []
    for name, folder in FOLDERS.items():
        inner = find_namespace_packages(folder, exclude=["*__pycache__*"])
        found += [name, *(f"{name}.{package}" for package in inner)]
    return found


setup(package_dir=FOLDERS, packages=packages())
