"""An unpickler that makes nothing: opcodes are interpreted on a stack of texts, numbers, globals and unknowns, and what they would import and call is kept. Pure."""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar, Final

import msgspec

# What the tensors of a state dictionary are made of: `torch._weights_only_unpickler`, less what takes code or types of others.
TENSOR_GLOBALS: Final = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch.storage", "TypedStorage"),
        ("torch.storage", "UntypedStorage"),
        *(
            ("torch", f"{kind}Storage")
            for kind in (
                "BFloat16", "Bool", "Byte", "Char", "ComplexDouble", "ComplexFloat", "Double", "Float", "Half", "Int", "Long", "Short",
            )
        ),
        *(
            ("torch", kind)
            for kind in (
                "bfloat16", "bool", "complex128", "complex64", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2",
                "int16", "int32", "int64", "int8", "uint8",
            )
        ),
    }
)  # fmt: skip
UNREAD: Final = object()
_MOST_OPCODES = 3_000_000
_LAST_PROTOCOL = 5
_MARK, _UNKNOWN = object(), object()
_VALUES = frozenset(
    {
        "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4",
    }
)  # fmt: skip
_CHANGING = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "READONLY_BUFFER"})


class Found:
    """What was found so far.

    Attributes:
        names: modules and what is taken of them.
        wrong: sentences, in order, each once.
        calls: something is called, or taken under a name that is computed.
        opcodes: steps so far.
    """

    def __init__(self) -> None:
        self.names: set[tuple[str, str]] = set()
        self.wrong: dict[str, None] = {}
        self.calls = False
        self.opcodes = 0

    def name(self, module: str, name: str, where: str) -> "_Global":
        """Something is taken from a module."""
        self.names.add((module, name))
        if (module, name) not in TENSOR_GLOBALS:
            self.say(f"{where}it takes {module}.{name}, which no tensor needs")
        return _Global(module, name)

    def say(self, words: str) -> None:
        """Something is wrong."""
        self.wrong.setdefault(words[:300])


class _Global(msgspec.Struct, frozen=True):
    module: str
    name: str


class _Broken(Exception):
    """The opcodes do not go on."""


def read_pickle(file: BinaryIO, found: Found, where: str, number: int) -> Any:
    """Reads one pickle from where `file` stands; what it would give if that is a number or a text, `UNREAD` if it breaks off."""
    machine = Machine(found, where)
    begun = file.tell()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode, argument)
    except _Broken as broken:
        found.say(f"{where}{broken}")
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeError, AttributeError, EOFError) as error:
        what = "it is no pickle" if file.tell() - begun < 2 else "its pickle breaks off"
        found.say(f"{where}{what} ({str(error)[:100]}), number {number + 1} in the file")
    return UNREAD


class Machine:
    """The unpickler's stack and memo, with texts, numbers and globals as they are, and everything else unknown."""

    def __init__(self, found: Found, where: str) -> None:
        self._found = found
        self._where = where
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: Any, argument: Any) -> None:
        """Does what one opcode does.

        Raises:
            _Broken: if an unpickler would fail at it, or tensors do not need it.
        """
        self._found.opcodes += 1
        if self._found.opcodes > _MOST_OPCODES:
            raise _Broken(f"it has more than {_MOST_OPCODES} steps")
        name = opcode.name
        if name in _VALUES:
            self._stack.append(argument)
        elif name in self._alone:
            self._alone[name](self)
        elif name in self._naming:
            self._naming[name](self, argument)
        else:
            self._plain(opcode)

    def pop(self) -> Any:
        """Takes the topmost value."""
        value = self._top()
        self._stack.pop()
        return value

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Broken("its stack is empty")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        items: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return items[::-1]
            items.append(value)
        raise _Broken("it has no mark where it needs one")

    def _plain(self, opcode: Any) -> None:
        """A step that makes values of values: as many are taken and given as `pickletools` says."""
        before = list(opcode.stack_before)
        if pickletools.markobject in before:
            self._to_mark()
            before = before[: before.index(pickletools.markobject)]
        taken = [self.pop() for _ in before]
        if opcode.name in _CHANGING and isinstance(taken[-1], _Global):
            raise _Broken("it changes what it has taken from a module")
        self._stack.extend(_UNKNOWN for _ in opcode.stack_after)

    def _mark(self) -> None:
        self._stack.append(_MARK)

    def _double(self) -> None:
        self._stack.append(self._top())

    def _drop(self) -> None:
        if not self._stack:
            raise _Broken("its stack is empty")
        self._stack.pop()  # a mark too

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _build(self) -> None:
        self.pop()
        if isinstance(self._top(), _Global):
            raise _Broken("it changes what it has taken from a module")

    def _call(self, arguments: int) -> None:
        for _ in range(arguments):
            self.pop()
        self._called(self.pop())

    def _reduce(self) -> None:
        self._call(1)

    def _new(self) -> None:
        self._call(2)

    def _object(self) -> None:
        items = self._to_mark()
        self._called(items[0] if items else _UNKNOWN)

    def _called(self, what: Any) -> None:
        self._found.calls = True
        if not isinstance(what, _Global):
            raise _Broken("it calls what it has computed")
        self._stack.append(_UNKNOWN)

    def _stack_global(self) -> None:
        attribute, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            self._found.calls = True
            raise _Broken("it takes something whose name it computes")
        self._stack.append(self._found.name(module, attribute, self._where))

    def _global(self, argument: Any) -> None:
        module, _, attribute = str(argument).partition(" ")
        self._stack.append(self._found.name(module, attribute, self._where))

    def _instance(self, argument: Any) -> None:
        self._to_mark()
        self._global(argument)
        self._called(self.pop())

    def _extension(self, _argument: Any) -> None:
        self._found.calls = True
        raise _Broken("it takes something from copyreg's registry")

    def _put(self, argument: Any) -> None:
        self._memo[int(argument)] = self._top()

    def _get(self, argument: Any) -> None:
        if int(argument) not in self._memo:
            raise _Broken("it takes from its memo what it has not put there")
        self._stack.append(self._memo[int(argument)])

    def _protocol(self, argument: Any) -> None:
        if int(argument) > _LAST_PROTOCOL:
            raise _Broken(f"its protocol is {argument}, and {_LAST_PROTOCOL} is the last")

    _alone: ClassVar[dict[str, Callable[[Any], None]]] = {
        "MARK": _mark,
        "DUP": _double,
        "POP": _drop,
        "MEMOIZE": _memoize,
        "BUILD": _build,
        "REDUCE": _reduce,
        "NEWOBJ": _reduce,
        "NEWOBJ_EX": _new,
        "OBJ": _object,
        "STACK_GLOBAL": _stack_global,
    }
    _naming: ClassVar[dict[str, Callable[[Any, Any], None]]] = {
        "GLOBAL": _global,
        "INST": _instance,
        "EXT1": _extension,
        "EXT2": _extension,
        "EXT4": _extension,
        "PUT": _put,
        "BINPUT": _put,
        "LONG_BINPUT": _put,
        "GET": _get,
        "BINGET": _get,
        "LONG_BINGET": _get,
        "PROTO": _protocol,
    }
