"""Pickles read by opcode: every way to name what runs is seen, PyTorch's own files pass, and nothing is ever loaded."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.registry.pickles import Pickles, head_runs_code, runs_code, scan_torch

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Calls:
    """Pickled, it calls."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        return self.how


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of PyTorch's names, so that Python writes what `torch.save` would."""
    names = {"torch": ("FloatStorage",), "torch._utils": ("_rebuild_tensor_v2",)}
    for name, members in names.items():
        module = types.ModuleType(name)
        for member in members:
            made = type(member, (), {"__module__": name})
            setattr(module, member, made)
        monkeypatch.setitem(sys.modules, name, module)
    yield sys.modules["torch"]


class Storage:
    """What a tensor's numbers lie in: written by its key alone."""

    def __init__(self, key: str) -> None:
        self.key = key


def state(count: int = 3) -> Any:
    rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
    layers = collections.OrderedDict()
    for number in range(count):
        layers[f"layers.{number}"] = Calls(
            rebuild, (Storage(str(number)), 0, (2, 2), (2, 1), False, collections.OrderedDict())
        )
    return layers


class _Saving(pickle.Pickler):
    """What a tensor's numbers lie in is written by its key alone."""

    def persistent_id(self, one: Any) -> Any:
        storage = getattr(sys.modules.get("torch"), "FloatStorage", None)
        return ("storage", storage, one.key, "cpu", 4) if isinstance(one, Storage) else None


def pickled(value: Any, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    _Saving(out, protocol).dump(value)
    return out.getvalue()


def archive(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return out.getvalue()


def saved(value: Any, **more: bytes) -> bytes:
    """As `torch.save` writes it since 1.6."""
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    rest = {f"m/data/{i}": numbers for i in range(3)}
    return archive({"m/data.pkl": pickled(value), **rest, "m/version": b"3\n", "m/byteorder": b"little", **more})


def old(value: Any, protocol: int = 2) -> bytes:
    """As it did before: five pickles, then numbers."""
    system = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
    parts = (MAGIC, PROTOCOL, system, value, ["0", "1"])
    return b"".join(pickled(one, protocol) for one in parts) + struct.pack("<q4f", 4, 1, 2, 3, 4)


def scan(data: bytes) -> Pickles:
    return scan_torch(io.BytesIO(data), len(data))


TENSORS = ("collections.OrderedDict", "torch.FloatStorage", "torch._utils._rebuild_tensor_v2")


def test_what_pytorch_writes_is_known_and_its_globals_are_told(torch: Any) -> None:
    for data in (saved(state()), old(state()), old(state(), 1), old(state(), 4)):
        found = scan(data)
        assert found.wrong == ()
        assert found.globals == TENSORS
    assert scan(saved(state(10_000))).wrong == ()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", [old, lambda value, protocol: archive({"m/data.pkl": pickled(value, protocol)})])
def test_a_call_is_seen_in_every_protocol_and_form(form: Callable[..., bytes], protocol: int) -> None:
    found = scan(form({"w": Calls(os.system, ("true",))}, protocol))
    assert "posix.system" in found.globals
    assert "takes posix.system, which no tensor needs" in " ".join(found.wrong)


def memoized(module: bytes, name: bytes) -> bytes:
    """The names come from the memo, in the wrong order of places."""
    return (
        b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x94\x8c" + bytes([len(module)]) + module + b"\x9400h\x01h\x00\x93"
        b"\x8c\x04true\x85R."
    )  # fmt: skip


EVIL = {
    "memo": memoized(b"os", b"system"),
    "inst": b"(S'true'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'true'\no.",
    "padding": b"N0" * 5000 + b"cos\nsystem\n(S'true'\ntR.",
    "a long text before": b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"0cos\nsystem\n(S'true'\ntR.",
    "unicode names": b"\x80\x04X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93X\x04\x00\x00\x00true\x85R.",
    "dotted": b"\x80\x04\x8c\x05torch\x8c\x12storage.os.system_\x93\x8c\x04true\x85R.",
    "computed": b"\x80\x04\x8c\x02os(\x8c\x03sys\x8c\x03temt\x93\x8c\x04true\x85R.",
    "an extension": b"\x80\x02\x82\x01)R.",
    "builtins": b"cbuiltins\neval\n(S'1'\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cos\nS'system'\ntR.",
    "newobj": b"\x80\x02csubprocess\nPopen\n)\x81.",
    "after an error": b"cos\nsystem\n(S'true'\ntR\xff",
    "another file": b"ctorch.hub\nload\n(S'x'\ntR.",
}


@pytest.mark.parametrize("name", sorted(EVIL))
def test_every_way_to_call_is_refused_and_seen_in_other_files_too(name: str) -> None:
    data = EVIL[name]
    assert runs_code(io.BytesIO(data))
    assert head_runs_code(data[:512]) in ({True} if len(data) <= 512 else {None})
    for form in (archive({"m/data.pkl": data}), data, pickled(MAGIC) + pickled(PROTOCOL) + pickled({}) + data):
        assert scan(form).wrong, form[:40]


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "compressed": lambda: archive({"m/data.pkl": pickled({})}, zipfile.ZIP_DEFLATED),
    "a bomb": lambda: archive({"m/data.pkl": bytes(50 << 20)}, zipfile.ZIP_DEFLATED),
    "twice": lambda: archive({"m/data.pkl": pickled({})})[:0] + twice(),
    "no pickle": lambda: archive({"m/version": b"3"}),
    "torchscript": lambda: archive({"m/data.pkl": pickled({}), "m/code/x.py": b"import os", "m/constants.pkl": pickled(())}),
    "nested": lambda: archive({"m/data.pkl": pickled({}), "m/data/0": archive({"x.pkl": EVIL["inst"]})}),
    "nested deep": lambda: nested(5),
    "a pickle of its own": lambda: archive({"m/data.pkl": pickled({}), "m/data/0": pickled(Calls(os.system, ("true",)), 4)}),
    "cut off": lambda: archive({"m/data.pkl": pickled({})})[:-30],
    "two kinds at once": lambda: old({}) + archive({"m/data.pkl": pickled({})}),
    "no torch": lambda: pickle.dumps({"weights": [1.0]}),
    "empty": lambda: b"",
    "text": lambda: b"hello, these are weights\n" * 10,
    "a changed class": lambda: archive({"m/data.pkl": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb."}),
    "a called result": lambda: archive({"m/data.pkl": b"\x80\x02ccollections\nOrderedDict\n)R)R."}),
    "protocol 6": lambda: archive({"m/data.pkl": b"\x80\x06N."}),
    "a lie about a length": lambda: archive({"m/data.pkl": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x."}),
}  # fmt: skip


def twice() -> bytes:
    out = io.BytesIO()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(out, "w") as made:
        made.writestr("m/data.pkl", pickled({}))
        made.writestr("m/data.pkl", EVIL["inst"])
    return out.getvalue()


def nested(depth: int) -> bytes:
    data = pickled({})
    for _ in range(depth):
        data = archive({"m/data.pkl": pickled({}), "m/data/0": data})
    return data


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_what_pytorch_would_not_write_is_refused(name: str) -> None:
    assert scan(ARCHIVES[name]()).wrong


@pytest.mark.parametrize(
    "text",
    [
        b"cat\ndog\nelephant\n", b"config\nfoo\n", b"# A card\n(with brackets)", b'{"a": [1, 2]}', b"<net/>", b"", b"I1\nI2\nI3\n", b".",
        b"X\x10\x00\x00\x00", bytes(range(256)) * 8, b"(((((", b"N" * 600,
    ],
)  # fmt: skip
def test_texts_and_numbers_are_no_pickles(text: bytes) -> None:
    assert not runs_code(io.BytesIO(text))
    assert head_runs_code(text[:512]) is not True


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    assert isinstance(runs_code(io.BytesIO(data)), bool)
    assert scan(data).wrong
    scan(archive({"m/data.pkl": data}))


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False) | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_plain_values_pass_in_every_protocol(value: Any, protocol: int) -> None:
    """Everything that holds numbers and texts alone is read to its end, as Python's own pickler writes it."""
    found = scan(old(value, protocol))
    names = set(found.globals)
    assert names <= {"_codecs.encode", "__builtin__.bytes", "builtins.bytes"}  # how older protocols write bytes
    assert bool(found.wrong) == bool(names)
