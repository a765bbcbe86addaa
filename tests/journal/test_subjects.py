from penstock.journal.subjects import hash_subject


def test_hashes_are_keyed_and_stable() -> None:
    one, two = b"1" * 32, b"2" * 32
    assert hash_subject(one, "ann") == hash_subject(one, "ann")
    assert len({hash_subject(one, "ann"), hash_subject(two, "ann"), hash_subject(one, "bob")}) == 3
    assert len(hash_subject(one, "ann")) == 32
    assert hash_subject(one, "") == ""
    assert hash_subject(one, "\ud800")
