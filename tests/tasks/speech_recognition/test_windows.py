import itertools

import pytest

from resdomains_tasks.speech_recognition.windows import Window, Windows


def frames_of(window: Window, samples: int, hop: int) -> list[int]:
    """The frames of the whole recording that count in a window; frame t stands at sample t hop."""
    first = window.start // hop
    inside = range((min(window.stop, samples) - window.start) // hop + 1)
    return [first + frame for frame in list(inside)[window.first : window.behind]]


@pytest.mark.parametrize("hop", [1, 16, 100, 640])
@pytest.mark.parametrize("samples", [1, 30_000, 30_001, 31_999, 56_000, 123_457])
def test_windows_give_every_frame_once_in_order(samples: int, hop: int) -> None:
    cut = list(Windows(30.0, 4.0).cut(samples, 1000, hop))
    frames = [frame for window in cut for frame in frames_of(window, samples, hop)]
    assert frames == list(range(samples // hop + 1))
    assert cut[-1].stop == samples


@pytest.mark.parametrize("hop", [1, 16, 100, 640])
def test_every_frame_has_half_an_overlap_of_sound_around_it(hop: int) -> None:
    samples, rate = 100_003, 1000
    for window in Windows(10.0, 3.0).cut(samples, rate, hop):
        assert window.start % hop == 0
        assert window.stop - window.start <= 10 * rate
        frames = frames_of(window, samples, hop)
        if window.start:
            assert frames[0] * hop - window.start >= 1.5 * rate - hop
        if window.stop < samples:
            assert window.stop - frames[-1] * hop >= 1.5 * rate - hop


def test_windows_overlap_by_what_was_asked_for() -> None:
    cut = list(Windows(10.0, 3.0).cut(60_000, 1000, 10))
    assert {a.stop - b.start for a, b in itertools.pairwise(cut)} == {3000}
    assert all(window.stop - window.start == 10_000 for window in cut[:-1])


def test_a_recording_of_one_window_is_whole() -> None:
    (window,) = Windows(10.0, 3.0).cut(10_000, 1000, 10)
    assert window == Window(0, 10_000, 0, None)
    assert Windows(10.0, 3.0).limit(1000) == 10_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.9, 0.1), r"seconds must be at least 1, got 0\.9"),
        ((10.0, 0.0), r"overlap must be positive and at most half of the 10 seconds, got 0\.0"),
        ((10.0, 5.1), r"got 5\.1"),
    ],
)
def test_windows_that_cannot_be_joined_are_refused(
    values: tuple[float, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Windows(*values)
