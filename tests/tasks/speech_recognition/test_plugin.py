import importlib
import inspect
import subprocess
import sys

from resdomains.plugins import find
from resdomains_tasks.speech_recognition import SpeechData, SpeechRecognition


def test_it_names_the_task_and_every_data_module() -> None:
    plugin = find("speech_recognition")
    named = {}
    for name, place in plugin.data.items():
        module, _, attribute = place.partition(":")
        named[name] = getattr(importlib.import_module(module), attribute)
    assert all(issubclass(data, SpeechData) for data in named.values())
    public = importlib.import_module("resdomains_tasks.speech_recognition")
    exported = {
        name
        for name in public.__all__
        if inspect.isclass(thing := getattr(public, name))
        and issubclass(thing, SpeechData)
        and not inspect.isabstract(thing)
    }
    assert named.keys() == exported
    module, _, attribute = plugin.task.partition(":")
    assert getattr(importlib.import_module(module), attribute) is SpeechRecognition


def test_data_modules_that_must_be_told_where_the_data_are_are_those_that_read_from_disk() -> None:
    plugin = find("speech_recognition")
    public = importlib.import_module("resdomains_tasks.speech_recognition")
    told = {
        name
        for name in plugin.data
        for argument in inspect.signature(getattr(public, name)).parameters.values()
        if argument.default is argument.empty and argument.name != "batch_size"
    }
    assert told == set(plugin.reads_from_disk)


def test_it_loads_without_the_domain() -> None:
    code = (
        "import sys; from resdomains.plugins import find; find('speech_recognition'); "
        "print([n for n in ('torch', 'soundfile', 'torchaudio', 'tokenizers') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
