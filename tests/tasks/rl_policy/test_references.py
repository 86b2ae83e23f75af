import pytest

from resdomains_tasks.rl_policy.references import REFERENCES, measure_random
from resdomains_tasks.rl_policy.registration import find


@pytest.mark.parametrize(
    ("environment", "within"),
    [("CartPole-v1", 2.5), ("MountainCar-v0", 0.1), ("Taxi-v4", 12), ("MinAtar/Breakout-v1", 0.2)],
)
def test_random_returns_are_as_measured(environment: str, within: float) -> None:
    """With other seeds than the table's."""
    returns = measure_random(environment, 10 if environment == "MountainCar-v0" else 150, seed=7)
    assert returns.mean() == pytest.approx(REFERENCES[environment].random, abs=within)


def test_random_returns_follow_from_the_seed() -> None:
    one, other = (measure_random("CartPole-v1", 5, seed) for seed in (3, 3))
    assert one.tolist() == other.tolist()
    assert one.tolist() != measure_random("CartPole-v1", 5, 4).tolist()


def test_every_reference_is_above_random_play_and_says_its_source() -> None:
    assert sum(name.startswith("ALE/") for name in REFERENCES) == 57
    for name, reference in REFERENCES.items():
        assert reference.random < reference.reference, name
        assert reference.source


def test_every_reference_is_of_a_known_environment() -> None:
    for name in REFERENCES:
        assert find(name).id == name
