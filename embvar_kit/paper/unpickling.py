"""Read a pickle from an unknown source: as data only, without calling anything that it names.

A pickle is a program for a small stack machine. Two of its instructions make it dangerous: one
looks up a Python object by name, the other calls it. Here a name is looked up in
:data:`REBUILDERS` and never in a module. What stands there are functions of this module, which
rebuild arrays from bytes whose number they have checked. Instructions that make instances or sets
are refused, and so are keys of a dict other than strings and numbers.

The machine is the standard library's, in its Python form. For the C form, an allow-list of names is
not enough: before Python 3.14 a file of nine bytes makes it fill 64 GB, and a dict's key nested
deeply enough crashes the interpreter when it is hashed. PyTorch's own restricted reader crashes on
such a key, too, and inflates compressed archives. The PyTorch vectors in the authors' word-level
files are therefore read without PyTorch.
"""

from __future__ import annotations

import mmap
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from sys import getsizeof
from typing import Any, ClassVar

import numpy as np

from embvar_kit.errors import ReleaseError

MEMORY_PER_BYTE = 64
"""Bytes of memory that calls may take for each byte of the file: about what ``{}`` takes, a byte in
a pickle. Without a limit, many arrays could be made of the same bytes."""

_DTYPES = re.compile(r"[fiu][248]|[iu]1|b1|U[1-9][0-9]{0,6}|O8?")
_STORAGES = {b"FloatStorage": "<f4", b"DoubleStorage": "<f8", b"HalfStorage": "<f2"}
_STORAGE_HEADER = re.compile(
    rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\."  # PyTorch's magic number
    rb"\x80\x02M\xe9\x03\."  # its version of the format
    rb"\x80\x02}.{0,300}?\."  # sizes of integers on the writer's machine
    rb"\x80\x02\(X\x07\0\0\0storageq\0ctorch\n(\w{1,40})\n.{0,200}?Q\."
    rb"\x80\x02\]q\0.{0,100}?a\."  # the storage's key
    rb"(.{8})",  # how many numbers follow
    re.DOTALL,
)


def load(path: str | Path) -> Any:
    """Return the lists, dicts, strings, numbers and NumPy arrays that a pickle holds.

    Args:
        path: the file. Arrays of objects are read if all elements are strings. One-dimensional
            PyTorch tensors become arrays, and NumPy's strings plain ones.

    Raises:
        ReleaseError: If the file is missing, unreadable, truncated or no pickle, if it asks for
            anything else, which the message names, or for far more memory than it has bytes.
    """
    path = Path(path).expanduser()
    try:
        # Checked before opening, because opening a named pipe would wait for a writer.
        if path.exists() and not (path.is_file() and path.stat().st_size):
            raise ReleaseError(f"{path.name!r} is empty or not a regular file. Fetch it again.")
        # Unlike a file object, a memory map never reserves more than the file has.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Unpickler(data).load()
    except _Refused as error:
        raise ReleaseError(
            f"{path.name!r} asks for {error}. Only lists, dicts, strings, numbers and arrays are "
            "read, because anything else could run code; none was run. Take the file from the "
            "authors' release, or ask its maker for plain arrays."
        ) from None
    except ReleaseError:
        raise
    except OSError as error:
        raise ReleaseError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # damaged bytes raise exceptions of a dozen types
        raise ReleaseError(
            f"{path.name!r} is truncated, damaged or not a pickle. Fetch or write it again."
        ) from error


class _Refused(Exception):
    """A pickle asks for something that is not plain data; the message says for what."""


# What arrays are rebuilt with. The arguments come from the file: they may be anything.


class _DType:
    """The data type of an array: numbers, text, or objects that must all be strings."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True) -> None:
        if type(code) is not str or not _DTYPES.fullmatch(code):
            raise _Refused(f"an array of type {code[:40] if type(code) is str else type(code)!r}")
        self.dtype = np.dtype(code)

    def set_byte_order(self, state: tuple) -> None:
        """Set the byte order. The size may only repeat what the code says."""
        _, order, *fields, size, _, _ = state
        if order not in ("<", ">", "|", "=") or fields != [None, None, None]:
            raise _Refused("an array with fields")
        if size not in (-1, self.dtype.itemsize):
            raise ValueError("the size does not fit the type")
        if order != "|":
            self.dtype = self.dtype.newbyteorder(order)


def _fitting_dtype(kind: Any, shape: Any, content: Any) -> np.dtype:
    """The type of an array, if its content is admitted and has as many elements as the shape."""
    if type(kind) is not _DType:
        raise _Refused("an array without a type")
    dtype, n = kind.dtype, _size(shape)
    if dtype.hasobject:
        if type(content) is not list:
            raise _Refused("an array of objects from bytes")
        for element in content:
            if type(element) is not str:
                raise _Refused(f"an array with objects of type {type(element).__name__}")
    elif type(content) in (bytes, bytearray):
        n *= dtype.itemsize
    else:
        raise _Refused("an array of numbers from objects")
    if len(content) != n:
        raise ValueError("the content does not fit the shape")
    return dtype


def _size(shape: Any) -> int:
    if type(shape) is not tuple or len(shape) > 32:
        raise ValueError("not a shape")
    size = 1
    for n in shape:
        if type(n) is not int or not 0 <= n < 2**63:  # larger factors could fill the memory
            raise ValueError("not a shape")
        size *= n
    return size


def _ndarray() -> None:
    raise _Refused("an array without content")


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _ndarray:
        raise _Refused("an array of a subclass")
    return np.empty(0, dtype="V1")  # a type that no file can name marks it as not yet filled


def _fill(array: np.ndarray, state: tuple) -> None:
    _, shape, kind, fortran, content = state
    dtype = _fitting_dtype(kind, shape, content)
    array.__setstate__((1, shape, dtype, bool(fortran), content))


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    array = np.frombuffer(data, _fitting_dtype(kind, shape, data))
    if order == "K" and axes is not None:
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order=order)


def _scalar(kind: Any, data: Any) -> np.generic | str:
    if type(kind) is not _DType or type(data) is not bytes or len(data) != kind.dtype.itemsize:
        raise ValueError("not the bytes of a scalar")
    value = np.frombuffer(data, kind.dtype)[0]  # NumPy makes no objects from bytes
    return str(value) if isinstance(value, str) else value


def _encode(text: Any, encoding: Any) -> bytes:
    # Protocols 0 to 2 write bytes as Latin-1 text. Other codecs can inflate or import.
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise _Refused("a codec other than Latin-1")
    return text.encode("latin-1")


def _bytes() -> bytes:
    return b""


def _ordered_dict() -> dict:
    return {}  # the hooks of a tensor: a computed one has none


class _Storage(np.ndarray):
    """``(n,)`` the numbers of which PyTorch tensors are parts."""


def _load_from_bytes(data: Any) -> _Storage:
    header = _STORAGE_HEADER.match(data) if type(data) is bytes else None
    if header is None:
        raise _Refused("a PyTorch storage of an unknown form")
    name, n = header[1], int.from_bytes(header[2], "little")
    if name not in _STORAGES:
        raise _Refused(f"torch.{name.decode()}")
    dtype = np.dtype(_STORAGES[name])
    if len(data) != header.end() + n * dtype.itemsize:
        raise ValueError("the bytes do not fit the storage")
    return np.frombuffer(data, dtype, offset=header.end()).view(_Storage)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> np.ndarray:
    n = _size(shape)
    if type(storage) is not _Storage or len(shape) != 1 or stride != (1,):
        raise _Refused("a PyTorch tensor that is not a plain vector")
    if type(offset) is not int or not 0 <= offset <= len(storage) - n:
        raise ValueError("a tensor outside its storage")
    return storage[offset : offset + n].view(np.ndarray)


REBUILDERS: dict[str, Callable] = {
    "numpy.ndarray": _ndarray,
    "numpy.dtype": _DType,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "__builtin__.bytes": _bytes,
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch.storage._load_from_bytes": _load_from_bytes,
}
"""What takes the place of each name that a pickle may look up."""

for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    REBUILDERS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    REBUILDERS[f"{_core}.multiarray.scalar"] = _scalar
    REBUILDERS[f"{_core}.numeric._frombuffer"] = _frombuffer


class _Unpickler(pickle._Unpickler):
    """The standard stack machine, without the instructions that could do more than hold data."""

    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: mmap.mmap) -> None:
        super().__init__(data)
        self._memory = MEMORY_PER_BYTE * len(data)

    def find_class(self, module: str, name: str) -> Callable:
        """Look a name up in the list; nothing is imported."""
        if f"{module}.{name}" not in REBUILDERS:
            raise _Refused(f"{module[:80]}.{name[:80]}")
        return REBUILDERS[f"{module}.{name}"]

    def _count(self, made: Any) -> None:
        self._memory -= getsizeof(made)
        if self._memory < 0:
            raise _Refused("far more memory than it has bytes")

    def _call(self) -> None:
        # Only what find_class returned can be called: nothing else on the stack is callable.
        arguments = self.stack.pop()
        if type(arguments) is not tuple:
            raise _Refused("a call without a tuple of arguments")
        self.stack[-1] = made = self.stack[-1](*arguments)
        self._count(made)

    def _set_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(state) is tuple and type(target) is _DType:
            target.set_byte_order(state)
        elif type(state) is tuple and type(target) is np.ndarray and target.dtype.kind == "V":
            _fill(target, state)
            self._count(target)
        else:
            raise _Refused(f"new content for a value of type {type(target).__name__}")

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _set_items(self) -> None:
        self._update(self.pop_mark())

    def _update(self, items: list) -> None:
        for key in items[::2]:
            if not isinstance(key, (str, int, np.integer)):
                raise _Refused(f"a dict with keys of type {type(key).__name__}")
        if type(self.stack[-1]) is not dict:
            raise _Refused(f"new items for a value of type {type(self.stack[-1]).__name__}")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _bytearray(self) -> None:
        # The standard form reserves the length before it reads.
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _refuse(self) -> None:
        raise _Refused("an object that is not plain data")

    dispatch |= {
        pickle.REDUCE[0]: _call,
        pickle.BUILD[0]: _set_state,
        pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.BYTEARRAY8[0]: _bytearray,
    }
    for _opcode in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID, pickle.BINPERSID),
        *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
        *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        dispatch[_opcode[0]] = _refuse
