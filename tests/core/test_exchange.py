import msgspec

from penstock.core.exchange import Exchange, Finding, Observation, Opened, Phases, Record, Usage

decoder = msgspec.msgpack.Decoder(Record)


def test_each_record_is_known_by_its_tag() -> None:
    exchange = Exchange(
        id="req_1",
        at=1.5,
        phases=Phases(decoded=3),
        usage=Usage(prompt=2),
        findings=(Finding("cards", "mask", "input"),),
    )
    for record in (
        exchange,
        Opened(exchange=exchange),
        Observation(id="o", at=1.0, received=2.0, kind="event", tenant="t"),
    ):
        assert decoder.decode(msgspec.msgpack.encode(record)) == record


def test_an_old_record_without_newer_fields_is_read() -> None:
    assert decoder.decode(msgspec.msgpack.encode({"type": "exchange", "id": "req_1", "at": 1.0})) == Exchange(
        id="req_1", at=1.0
    )


def test_a_record_with_fields_of_the_future_is_read() -> None:
    told = {"type": "exchange", "id": "req_1", "at": 1.0, "mood": "good"}
    assert decoder.decode(msgspec.msgpack.encode(told)) == Exchange(id="req_1", at=1.0)
