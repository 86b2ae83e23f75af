import json
from dataclasses import replace
from typing import Any

import pytest

from resdomains_tasks.speech_recognition import SpeechSpec

from .support import RATE, spec_of


def test_it_is_plain_and_rebuilds_itself() -> None:
    spec = spec_of("low mid", "é")
    plain = spec.plain()
    assert plain == json.loads(json.dumps(plain))
    assert SpeechSpec.of(plain) == spec


def test_outputs_are_the_tokens_and_inputs_the_rate() -> None:
    spec = spec_of("cab a")
    assert spec.output_names == ["<blank>", "a", "b", "c", "▁"]
    assert spec.vocabulary == 5
    assert spec.input_meaning == {"sample_rate": RATE}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be at least 1 Hz, got 0"),
        ({"vocabulary": 1}, "vocabulary must hold the blank and at least one token, got 1"),
    ],
)
def test_values_that_cannot_be_used_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(spec_of("low"), **changes)


def test_what_is_missing_or_unknown_is_named() -> None:
    plain = spec_of("low").plain()
    del plain["tokenizer"]
    with pytest.raises(ValueError, match="it lacks tokenizer; it has the unknown colour"):
        SpeechSpec.of({**plain, "colour": 1})
