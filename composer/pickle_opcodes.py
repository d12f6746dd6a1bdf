"""A tiny machine that reads the pickle of a PyTorch checkpoint and can do nothing else.

It knows the opcodes and the handful of names that a state dict needs. Everything else is refused
before it has any effect: nothing is imported, called or allocated on the pickle's behalf; tensors
come out as descriptions of where their numbers lie.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from composer.strict_json import shown

MAX_OPCODES = 400_000

_DTYPES = {
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
}
_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_CALLABLE = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER}


class UnsafePickle(Exception):
    """A pickle that is broken or wants more than a state dict needs; `fix` says how to go on."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix or (
            "Save the adapter as safetensors on the machine it was trained on, with peft's "
            "save_pretrained; do not open this file with torch.load."
        )


@dataclass(frozen=True)
class Storage:
    """A run of `count` numbers in the checkpoint's member data/`key`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A view into a storage, in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A global of the allow-list, which is never looked up."""

    name: str


_MARK = object()


def read_state_dict(data: bytes) -> dict[str, StoredTensor]:
    """Read the pickle of a state dict.

    Raises:
        UnsafePickle: for anything but a dict of names and tensors.
    """
    result = _Machine().run(data)
    if not isinstance(result, dict) or not result:
        message = "The pickle does not hold a dict of tensors."
        raise UnsafePickle(message)
    tensors = {}
    for name, value in result.items():
        if not isinstance(value, StoredTensor):
            message = f"The entry {shown(name)} is not a tensor."
            raise UnsafePickle(message, "Save the state dict of the adapter alone.")
        tensors[name] = value
    return tensors


class _Machine:
    """The stack and the memo; one small method an opcode family."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def run(self, data: bytes) -> object:
        for number, (opcode, argument) in enumerate(_opcodes(data)):
            if number >= MAX_OPCODES:
                message = f"The pickle has more than {MAX_OPCODES} instructions."
                raise UnsafePickle(message)
            if opcode == "STOP":
                break
            handler = _HANDLERS.get(opcode)
            if handler is None:
                message = f"The pickle uses the instruction {opcode}, which no state dict needs."
                raise UnsafePickle(message)
            handler(self, argument)
        if len(self.stack) != 1:
            raise UnsafePickle(_BROKEN)
        return self.stack[0]

    def pop(self) -> object:
        if not self.stack or self.stack[-1] is _MARK:
            raise UnsafePickle(_BROKEN)
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        items = []
        while self.stack and self.stack[-1] is not _MARK:
            items.append(self.stack.pop())
        if not self.stack:
            raise UnsafePickle(_BROKEN)
        self.stack.pop()
        return items[::-1]

    def ignore(self, _: object) -> None:
        """PROTO and FRAME say how the bytes are laid out, which pickletools has dealt with."""

    def mark(self, _: object) -> None:
        self.stack.append(_MARK)

    def push(self, argument: object) -> None:
        self.stack.append(argument)

    def none(self, _: object) -> None:
        self.stack.append(None)

    def true(self, _: object) -> None:
        self.stack.append(True)

    def false(self, _: object) -> None:
        self.stack.append(False)

    def empty_dict(self, _: object) -> None:
        self.stack.append({})

    def empty_tuple(self, _: object) -> None:
        self.stack.append(())

    def tuple_of_mark(self, _: object) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def tuple1(self, _: object) -> None:
        self.stack.append((self.pop(),))

    def tuple2(self, _: object) -> None:
        second, first = self.pop(), self.pop()
        self.stack.append((first, second))

    def tuple3(self, _: object) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.stack.append((first, second, third))

    def put(self, argument: object) -> None:
        if not self.stack or self.stack[-1] is _MARK or not isinstance(argument, int):
            raise UnsafePickle(_BROKEN)
        self.memo[argument] = self.stack[-1]

    def memoize(self, _: object) -> None:
        self.put(len(self.memo))

    def get(self, argument: object) -> None:
        if not isinstance(argument, int) or argument not in self.memo:
            raise UnsafePickle(_BROKEN)
        self.stack.append(self.memo[argument])

    def named(self, argument: object) -> None:
        self.stack.append(_allowed_name(str(argument)))

    def stack_named(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UnsafePickle(_BROKEN)
        self.stack.append(_allowed_name(f"{module} {name}"))

    def persistent(self, _: object) -> None:
        self.stack.append(_storage(self.pop()))

    def reduce(self, _: object) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise UnsafePickle(_BROKEN)
        self.stack.append(_call(function.name, arguments))

    def set_item(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def set_items(self, _: object) -> None:
        self._set(self.pop_to_mark())

    def build(self, _: object) -> None:
        """Drop the attributes of a dict: a state dict carries its `_metadata` there."""
        state = self.pop()
        if not isinstance(state, dict) or not self.stack or not isinstance(self.stack[-1], dict):
            message = "The pickle changes the state of an object that is not a dict."
            raise UnsafePickle(message)

    def _set(self, items: list[object]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict) or len(items) % 2:
            raise UnsafePickle(_BROKEN)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                message = "The pickle holds a dict whose keys are not texts."
                raise UnsafePickle(message)
            if key in target:
                message = f"The pickle names the entry {shown(key)} twice."
                raise UnsafePickle(message)
            target[key] = value


def _opcodes(data: bytes) -> list[tuple[str, object]]:
    opcodes = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            opcodes.append((opcode.name, argument))
            if len(opcodes) > MAX_OPCODES:
                break
    except Exception as error:
        # pickletools raises whatever its argument readers raise; all of it means "malformed".
        raise UnsafePickle(_BROKEN) from error
    return opcodes


def _allowed_name(name: str) -> _Name:
    if name in _CALLABLE or name in _DTYPES:
        return _Name(name)
    dotted = name.replace(" ", ".")
    if name.startswith("torch ") and name.endswith("Storage"):
        message = f"The file holds numbers of the type {shown(dotted)}."
        raise UnsafePickle(message, "Convert the adapter first: model.to(torch.float16).")
    message = f"The pickle asks for {shown(dotted)}, which no adapter needs."
    raise UnsafePickle(message)


def _storage(identifier: object) -> Storage:
    match identifier:
        case ("storage", _Name(name=name), str(key), str(), int(count)) if name in _DTYPES:
            # The key becomes a member name of the archive: digits only, as torch writes it.
            if key.isascii() and key.isdigit() and _is_size(count):
                return Storage(_DTYPES[name], key, count)
    message = "The pickle refers to data in an unknown way."
    raise UnsafePickle(message)


def _call(name: str, arguments: tuple[object, ...]) -> object:
    match name, arguments:
        case (n, ()) if n == _ORDERED_DICT:
            return {}
        case (n, (StoredTensor() as tensor, bool(), _)) if n == _REBUILD_PARAMETER:
            return tensor
        case (n, (Storage() as storage, offset, shape, stride, bool(), _, *_)) if (
            n == _REBUILD_TENSOR
        ):
            return _tensor(storage, offset, shape, stride)
    message = "The pickle builds a tensor in an unknown way."
    raise UnsafePickle(message)


def _tensor(storage: Storage, offset: object, shape: object, stride: object) -> StoredTensor:
    if not _is_size(offset) or not _are_sizes(shape) or not _are_sizes(stride):
        raise UnsafePickle(_BROKEN)
    if len(shape) != len(stride):
        raise UnsafePickle(_BROKEN)
    return StoredTensor(storage, offset, shape, stride)


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 40


def _are_sizes(value: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(value, tuple) and all(_is_size(item) for item in value)


_BROKEN = "The pickle is malformed."

_HANDLERS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": _Machine.ignore,
    "FRAME": _Machine.ignore,
    "MARK": _Machine.mark,
    "BINUNICODE": _Machine.push,
    "SHORT_BINUNICODE": _Machine.push,
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "NONE": _Machine.none,
    "NEWTRUE": _Machine.true,
    "NEWFALSE": _Machine.false,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "TUPLE": _Machine.tuple_of_mark,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.stack_named,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "BUILD": _Machine.build,
}
