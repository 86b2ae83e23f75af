from resdomains.training.room import Room


def test_room_is_given_while_there_is_some() -> None:
    room = Room(10)
    assert room.take(6)
    assert not room.take(5)
    assert room.take(4)
    assert not room.take(1)
