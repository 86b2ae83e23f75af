import ast
import re
import shutil
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from resdomains.schema import Split
from resdomains_tasks.text_classification.docstrings import SUBJECTS, Docstrings, docstrings
from resdomains_tasks.text_classification.texts import Texts
from resdomains_tasks.text_classification.tokens import Characters

LIBRARY = Path(sysconfig.get_path("stdlib"))


@pytest.fixture(scope="module")
def splits() -> dict[Split, Texts]:
    return docstrings()


def files(texts: Texts) -> set[str]:
    return {source.rpartition(":")[0] for source in texts.sources}


def test_at_least_eight_subjects_are_balanced_in_each_split(splits: dict[Split, Texts]) -> None:
    assert list(splits) == ["train", "val", "test"]
    assert sum(map(len, splits.values())) > 4000
    for texts in splits.values():
        counts = Counter(str(target) for target in texts.targets)
        assert len(counts) >= 8
        assert max(counts.values()) < 1.6 * min(counts.values())


def test_the_splits_share_no_file_and_no_text(splits: dict[Split, Texts]) -> None:
    held = [file for texts in splits.values() for file in files(texts)]
    assert len(set(held)) == len(held)
    words = [
        " ".join(re.findall(r"[a-z]+", text.lower()))
        for texts in splits.values()
        for text in texts.texts
    ]
    assert len(set(words)) == len(words)


def test_no_text_nearly_repeats_one_of_another_split(splits: dict[Split, Texts]) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[^\W\d_]+", text.lower())
        return {tuple(words[k : k + 3]) for k in range(max(len(words) - 2, 1))}

    train = [runs(text) for text in splits["train"].texts]
    for text in splits["test"].texts[::7]:
        of_text = runs(text)
        assert max(len(of_text & other) / len(of_text | other) for other in train) <= 0.6


def test_a_text_is_the_docstring_at_its_place(splits: dict[Split, Texts]) -> None:
    texts = splits["test"]
    for text, source, subject in list(zip(texts.texts, texts.sources, texts.targets, strict=True))[
        ::50
    ]:
        file, _, line = source.rpartition(":")
        found = [
            ast.get_docstring(node)
            for node in ast.walk(ast.parse((LIBRARY / file).read_bytes()))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and node.body[0].lineno == int(line)
        ]
        assert text in found
        assert file.partition("/")[0].removesuffix(".py") in SUBJECTS[str(subject)].split()


def test_no_subject_takes_a_module_of_another() -> None:
    names = [name for of in SUBJECTS.values() for name in of.split()]
    assert len(set(names)) == len(names)


def test_nothing_is_imported(tmp_path: Path) -> None:
    shutil.copytree(LIBRARY / "json", tmp_path / "json")
    shutil.copytree(LIBRARY / "xml", tmp_path / "xml")
    for name in ("argparse", "configparser", "difflib", "optparse", "textwrap"):
        shutil.copy(LIBRARY / f"{name}.py", tmp_path)
    (tmp_path / "csv.py").write_text(
        'raise SystemExit("this was run")\ndef f():\n    """Never run, only read as any source."""\n'
    )
    before = set(sys.modules)
    found = docstrings(tmp_path)
    assert set(found["train"].targets) == {"text"}
    assert any("csv.py:3" in texts.sources for texts in found.values())
    assert set(sys.modules) == before


def test_other_packages_tests_and_file_order_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("json", "xml"):
        shutil.copytree(LIBRARY / name, tmp_path / name)
    for name in ("argparse", "configparser", "difflib", "optparse", "textwrap"):
        shutil.copy(LIBRARY / f"{name}.py", tmp_path)
    plain = docstrings(tmp_path)
    for extra in ("site-packages/other.py", "json/tests/test_json.py", "xml/test/a.py", "mine.py"):
        (tmp_path / extra).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / extra).write_text('"""A docstring that is none of the library\'s own."""\n')
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(listed(self, pattern))))
    assert docstrings(tmp_path) == plain


def test_a_subject_with_few_docstrings_is_left_out(tmp_path: Path) -> None:
    shutil.copytree(LIBRARY / "xml", tmp_path / "xml")
    for name in ("argparse", "configparser", "difflib", "optparse"):
        shutil.copy(LIBRARY / f"{name}.py", tmp_path)
    shutil.copy(LIBRARY / "fractions.py", tmp_path)
    assert {name for t in docstrings(tmp_path).values() for name in map(str, t.targets)} == {"text"}


def test_what_several_subjects_have_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("resdomains_tasks.text_classification.docstrings.FEWEST_OF_A_SUBJECT", 1)
    shutil.copytree(LIBRARY / "xml", tmp_path / "xml")
    for name in ("argparse", "configparser", "difflib", "optparse", "fractions"):
        shutil.copy(LIBRARY / f"{name}.py", tmp_path)
    one = 'def shared():\n    """What two subjects say in the same words."""\n'
    own = 'def own():\n    """What one subject says and no other does."""\n'
    (tmp_path / "csv.py").write_text(one + own)
    (tmp_path / "random.py").write_text(one)
    found = [text for texts in docstrings(tmp_path).values() for text in texts.texts]
    assert "What one subject says and no other does." in found
    assert "What two subjects say in the same words." not in found


def test_a_python_without_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="source of Python's standard library is not in"):
        docstrings(tmp_path)


def test_the_docstrings_are_as_documented_on_this_version(splits: dict[Split, Texts]) -> None:
    if sys.version_info[:2] != (3, 11) or "graphics" not in splits["train"].targets:
        pytest.skip("the documented numbers are of a full CPython 3.11")
    documented = dict(
        re.findall(r"([a-z]+) (\d+/\d+/\d+)", " ".join((Docstrings.__doc__ or "").split()))
    )
    counts = [Counter(str(target) for target in texts.targets) for texts in splits.values()]
    for subject in SUBJECTS:
        # Patch releases add a few.
        for said, count in zip(documented[subject].split("/"), counts, strict=True):
            assert abs(int(said) - count[subject]) <= 10


def test_the_data_module_knows_the_subjects(
    monkeypatch: pytest.MonkeyPatch, splits: dict[Split, Texts]
) -> None:
    monkeypatch.setattr(
        "resdomains_tasks.text_classification.docstrings.docstrings", lambda: splits
    )
    data = Docstrings(batch_size=8, tokens=Characters(), max_length=32)
    assert data.spec["classes"] == sorted(SUBJECTS)
    test = data.dataset("test")
    assert test is not None
    assert len(test) == len(splits["test"])
