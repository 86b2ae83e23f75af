from resdomains.cli.schema import Schema
from resdomains.training import EMA


class Slower(EMA):
    """What a person derives from a class of ours."""


def test_a_class_keeps_its_short_name_when_others_derive_from_it_elsewhere() -> None:
    schema = Schema({"average": EMA}, extra=(__name__,))
    assert schema.resolve("EMA", [EMA], "average")[0] == "resdomains.training.averaging.EMA"
    assert schema.resolve("Slower", [EMA], "average")[0].endswith(".Slower")
