import pytest

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError


def test_configs_come_first_wherever_they_stand() -> None:
    found = split(
        ["--seed", "1", "--config=a", "--model.x=2", "--config", "b"],
        roots=("seed", "model"),
        composing=True,
    )
    assert found.configs == ["a", "b"]
    assert found.overrides == [(("seed",), "1"), (("model", "x"), "2")]


def test_values_may_hold_equal_signs_and_begin_with_one_dash() -> None:
    found = split(["--data.root=a=b", "--model.bias", "-1"], roots=("data", "model"))
    assert found.overrides == [(("data", "root"), "a=b"), (("model", "bias"), "-1")]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--confg", "a"], "no option --confg; did you mean 'config'"),
        (["--conf", "a"], "no option --conf; did you mean 'config'"),
        (["--seed"], "--seed needs a value"),
        (["--seed", "--config", "a"], "--seed needs a value"),
        (["--seed..x", "1"], "--seed..x: an empty part"),
        (["stray"], "unexpected argument 'stray'"),
        (["-c", "a"], "unexpected argument '-c'"),
    ],
)
def test_what_is_wrong_with_an_option_is_said(tokens: list[str], message: str) -> None:
    with pytest.raises(CliError, match=message):
        split(tokens, roots=("seed",), composing=True)


def test_a_command_that_composes_no_config_takes_none() -> None:
    with pytest.raises(CliError, match="no option --config; options: help, sweep, traceback"):
        split(["--config", "a"], switches=("sweep",))
    with pytest.raises(CliError, match="no option --sweeep; did you mean 'sweep'"):
        split(["--sweeep"], switches=("sweep",))
    assert split(["--sweep", "a"], switches=("sweep",), files=True).switches == {"sweep"}


def test_files_and_options_may_mix() -> None:
    found = split(["a.png", "--top", "3", "--", "--odd.png"], options=("top",), files=True)
    assert found.files == ["a.png", "--odd.png"]
    assert found.number("top", 5) == 3


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5"])
def test_numbers_are_checked(text: str) -> None:
    found = split([f"--top={text}"], options=("top",))
    with pytest.raises(CliError, match="whole number of at least 1"):
        found.number("top", 5)


def test_choices_are_checked() -> None:
    found = split(["--format", "jsn"], options=("format",))
    with pytest.raises(CliError, match="did you mean 'json'"):
        found.choice("format", "table", ("table", "json"))
