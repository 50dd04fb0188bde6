"""Reading a pickle that may be anybody's: data only, and nothing in it is ever called.

A pickle is a program for a small stack machine. Two of its instructions are what makes it
dangerous: one looks a Python object up by name, one calls it. Here a name is looked up in
:data:`ADMITTED`, never in a module, and what is found there are functions of this module that
build arrays from bytes whose number has been checked. The instructions that make instances,
sets or objects registered elsewhere are refused, and so are keys other than strings and numbers.

The machine is the standard library's, in its Python form: the form in C, before Python 3.14,
sets aside as much memory as a few bytes ask for.

The authors' word-level files hold PyTorch tensors. Their bytes are read by the same means, without
PyTorch, whose own reader of them runs whatever they ask for.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from embvar_kit.errors import ReleaseError

_NUMBERS = re.compile(r"[fiu][248]|[iu]1|b1")
_TEXT = re.compile(r"U[1-9][0-9]{0,6}")
_OBJECT = re.compile(r"O8?")
_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C


def load(path: str | Path) -> Any:
    """The lists, dicts, strings, numbers and NumPy arrays that a pickle holds.

    Args:
        path: of the file. Object arrays are admitted if all their elements are strings; one-
            dimensional PyTorch tensors come as arrays.

    Raises:
        ReleaseError: if the file is missing, unreadable, truncated, no pickle, or asks for
            anything else, which is named.
    """
    path = Path(path).expanduser()
    try:
        # Asked before it is opened: opening a pipe would wait for a writer.
        if path.exists() and not (path.is_file() and path.stat().st_size):
            raise ReleaseError(f"{path.name!r} is empty or no file. Fetch it again.")
        # Unlike a file, a map reads no more than there is, whatever length is asked for.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).load()
    except _Refusal as error:
        raise ReleaseError(
            f"{path.name!r} asks for {error}. The kit reads lists, dicts, strings, numbers and "
            "arrays only, since anything else could run code; nothing of it was run. Take the "
            "file from the authors' release, or have its maker write plain arrays."
        ) from None
    except ReleaseError:
        raise
    except OSError as error:
        raise ReleaseError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # what damaged bytes lead to is any of a dozen kinds
        raise ReleaseError(
            f"{path.name!r} is truncated, damaged or no pickle. Fetch or write it again."
        ) from error


class _Refusal(Exception):
    """Something in a pickle that is not admitted; says what."""


class _Admitted:
    """What stands for a Python object that a pickle names: at most a function of this module."""

    __slots__ = ("make",)

    def __init__(self, make: Callable | None) -> None:
        self.make = make


class _Kind:
    """A data type of arrays: numbers, text, or objects that are all strings."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if not isinstance(code, str) or not any(
            kind.fullmatch(code) for kind in (_NUMBERS, _TEXT, _OBJECT)
        ):
            raise _Refusal(f"an array of type {str(code)[:40]!r}")
        self.code = code
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take the byte order; sizes may only repeat what the code said, fields are refused."""
        _, order, *fields, size, _, _ = state
        if order not in ("<", ">", "|", "=") or fields != [None, None, None]:
            raise _Refusal(f"an array of type {self.code!r} with fields")
        dtype = np.dtype(self.code)
        if size not in (-1, dtype.itemsize):
            raise ValueError("a size that does not fit the type")
        self.dtype = dtype if order == "|" else dtype.newbyteorder(order)


_NDARRAY = _Admitted(None)


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _NDARRAY:
        raise _Refusal("an array of a class of its own")
    return np.empty(0, dtype=np.int8)  # its content follows, see _fill


def _fill(array: np.ndarray, state: Any) -> None:
    """Give an array that :func:`_reconstruct` made its content, in place, once that was checked.

    Once only: a second time would free what a view of it still shows.
    """
    _, shape, kind, fortran, content = state
    n = _size(shape)
    if kind.dtype.hasobject:
        if type(content) is not list or len(content) != n:
            raise ValueError("elements that do not fit the shape")
        for element in content:
            if type(element) is not str:
                raise _Refusal(f"an array of objects with a {type(element).__name__} in it")
    elif type(content) is not bytes or len(content) != n * kind.dtype.itemsize:
        raise ValueError("bytes that do not fit the shape")
    array.__setstate__((1, shape, kind.dtype, bool(fortran), content))


def _from_buffer(data: Any, kind: _Kind, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    if kind.dtype.hasobject or type(data) not in (bytes, bytearray):
        raise _Refusal("an array of objects from bytes")
    if len(data) != _size(shape) * kind.dtype.itemsize:
        raise ValueError("bytes that do not fit the shape")
    array = np.frombuffer(data, kind.dtype)
    if order == "K" and axes is not None:
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order=order)


def _scalar(kind: _Kind, data: Any) -> Any:
    if kind.dtype.hasobject or type(data) is not bytes:
        raise _Refusal("a scalar that is an object")
    if len(data) != kind.dtype.itemsize:
        raise ValueError("bytes that do not fit the type")
    return np.frombuffer(data, kind.dtype)[0]


def _size(shape: Any) -> int:
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("a shape that is none")
    return math.prod(shape)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocols 0 to 2 write bytes; other codecs can unpack or import."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise _Refusal(f"the codec {str(encoding)[:40]!r}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    return b""


def _no_hooks() -> dict:
    """A tensor carries an ordered dict of hooks, empty in those that were only computed."""
    return {}


class _Storage:
    """The numbers that tensors of PyTorch are parts of."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers


def _tensor_storage(data: Any) -> _Storage:
    """``(n,)`` the numbers that a PyTorch storage wrote: four pickles, a list of one, and bytes."""
    file = io.BytesIO(data)
    if _Reader(file).load() != _TORCH_MAGIC:
        raise ValueError("no storage of PyTorch")
    for _ in ("protocol", "system"):
        _Reader(file).load()
    storage = _StorageReader(file).load()
    keys = _Reader(file).load()
    n = int.from_bytes(file.read(8), "little")
    content = file.read()
    if not isinstance(storage, np.dtype) or len(keys) != 1 or len(content) != n * storage.itemsize:
        raise ValueError("a storage of PyTorch that is not whole")
    return _Storage(np.frombuffer(content, storage))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> np.ndarray:
    """``(d,)`` a PyTorch tensor of one dimension: part of a storage."""
    n = _size(shape)
    if type(storage) is not _Storage or len(shape) != 1 or stride != (1,):
        raise _Refusal("a tensor of PyTorch that is not a plain vector")
    if type(offset) is not int or not 0 <= offset <= len(storage.numbers) - n:
        raise ValueError("a tensor outside its storage")
    return storage.numbers[offset : offset + n].copy()


ADMITTED = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Admitted(_Kind),
    ("_codecs", "encode"): _Admitted(_encode),
    ("builtins", "bytes"): _Admitted(_no_bytes),
    ("__builtin__", "bytes"): _Admitted(_no_bytes),
    ("collections", "OrderedDict"): _Admitted(_no_hooks),
    ("torch._utils", "_rebuild_tensor_v2"): _Admitted(_tensor),
    ("torch.storage", "_load_from_bytes"): _Admitted(_tensor_storage),
}
"""What stands for each name that a pickle may look up; NumPy 1 and 2 have different modules."""

for _core in ("numpy.core", "numpy._core"):
    ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Admitted(_reconstruct)
    ADMITTED[f"{_core}.multiarray", "scalar"] = _Admitted(_scalar)
    ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Admitted(_from_buffer)


class _Reader(pickle._Unpickler):
    """The stack machine without the instructions that could do more than hold data."""

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._hollow: dict[int, np.ndarray] = {}  # arrays that still wait for their content

    def find_class(self, module: str, name: str) -> _Admitted:
        """What stands for a name: nothing is imported."""
        if (module, name) not in ADMITTED:
            raise _Refusal(f"{module[:80]}.{name[:80]}")
        return ADMITTED[module, name]

    def _call(self) -> None:
        arguments = self.stack.pop()
        called = self.stack[-1]
        if type(called) is not _Admitted or called.make is None or type(arguments) is not tuple:
            raise _Refusal("a call of something that is no function")
        made = called.make(*arguments)
        if called.make is _reconstruct:
            self._hollow[id(made)] = made
        self.stack[-1] = made

    def _build(self) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        if type(built) is np.ndarray:
            if self._hollow.pop(id(built), None) is not built:
                raise _Refusal("an array that has content to be given other content")
            _fill(built, state)
        elif type(built) is _Kind:
            built.build(state)
        else:
            raise _Refusal(f"the state of a {type(built).__name__} to be set")

    def _check_keys(self, keys: list) -> None:
        # The hash of a tuple that is nested deeply enough crashes the interpreter.
        for key in keys:
            if not isinstance(key, (str, int, np.integer)):
                raise _Refusal(f"a dict with a {type(key).__name__} for a key")

    def _dict(self) -> None:
        self._check_keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)

    def _set_item(self) -> None:
        self._check_keys(self.stack[-2:-1])
        self._check_dict(self.stack[-3])
        pickle._Unpickler.load_setitem(self)

    def _set_items(self) -> None:
        self._check_keys(self.stack[::2])
        self._check_dict(self.metastack[-1][-1])
        pickle._Unpickler.load_setitems(self)

    def _check_dict(self, target: Any) -> None:
        if type(target) is not dict:
            raise _Refusal(f"items of a {type(target).__name__} to be set")

    def _bytearray(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _refuse(self) -> None:
        raise _Refusal("an object that is no plain data")

    dispatch |= {
        pickle.REDUCE[0]: _call,
        pickle.BUILD[0]: _build,
        pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.BYTEARRAY8[0]: _bytearray,
    }
    dispatch |= dict.fromkeys(
        [
            *(pickle.INST[0], pickle.OBJ[0], pickle.NEWOBJ[0], pickle.NEWOBJ_EX[0]),
            *(pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]),
            *(pickle.PERSID[0], pickle.BINPERSID[0]),
            *(pickle.EMPTY_SET[0], pickle.ADDITEMS[0], pickle.FROZENSET[0]),
            *(pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0]),
        ],
        _refuse,
    )


class _StorageReader(_Reader):
    """Reads the one pickle of a PyTorch storage that names its type, and gives that type."""

    def find_class(self, module: str, name: str) -> np.dtype:
        """The type of numbers that a storage holds."""
        if module != "torch" or name not in _STORAGES:
            raise _Refusal(f"{module[:80]}.{name[:80]}")
        return np.dtype(_STORAGES[name])

    def _storage(self) -> None:
        kind, dtype, *_ = self.stack.pop()
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise _Refusal("a storage of PyTorch that is none")
        self.append(dtype)

    dispatch: ClassVar[dict] = {**_Reader.dispatch, pickle.BINPERSID[0]: _storage}
