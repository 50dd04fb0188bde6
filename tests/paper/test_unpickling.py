"""Pickles from unknown sources: data are read, all else is refused by name and never run."""

from __future__ import annotations

import builtins
import codecs
import collections
import os
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

import embvar_kit as ek
from embvar_kit.paper import unpickling

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SMALL = {
    0: {
        "tokens": ["a", "ü\n", "\ud800"],
        "mu": [np.arange(3, dtype=np.float32), np.ones((2, 3), order="F"), np.zeros((0, 4))],
        "scalars": [np.float32(1.5), np.float64(2), np.int64(-4), np.bool_(True)],
        "plain": [1, -(2**70), 2.5, None, True, b"", b"x\xff", (1, 2), ()],
        "text": [np.array(["a", "bcd"]), np.array(["a", "bcd"], dtype=object)],
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[1:],
        "swapped": np.arange(3, dtype=">i4"),
    }
}


@pytest.fixture
def load(tmp_path):
    """``load(data)`` reads a file of these bytes."""

    def read(data: bytes):
        path = tmp_path / "some.pkl"
        path.write_bytes(data)
        return unpickling.load(path)

    return read


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Check that the block never takes more than so many bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


class Calls:
    """Is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_are_what_pickle_itself_reads(load, protocol):
    data = pickle.dumps(SMALL, protocol)
    assert repr(load(data)) == repr(pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_files_of_numpy_1_are_read(load, protocol):
    held = [np.arange(3, dtype=np.float32), np.float64(2)]
    data = pickle.dumps(held, protocol)
    if protocol < 4:
        old = data.replace(b"numpy._core.", b"numpy.core.")
    else:  # names and frames carry their lengths
        old = data
        for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
            short = name.replace(b"_core", b"core")
            old = old.replace(bytes([len(name)]) + name, bytes([len(short)]) + short)
        size = struct.unpack("<Q", old[3:11])[0] - (len(data) - len(old))
        old = old[:3] + struct.pack("<Q", size) + old[11:]
    assert old != data
    assert repr(load(old)) == repr(held)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_vectors_of_pytorch_become_arrays(load, protocol):
    vectors = [torch.arange(4.0), torch.arange(8.0)[2:5], torch.ones(2, dtype=torch.float64)]
    found = load(pickle.dumps(vectors, protocol))
    for array, vector in zip(found, vectors, strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == vector.numpy().dtype
        assert array.tolist() == vector.tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Calls(os.system, "touch {ran}"), r"(posix|nt)\.system"),
        (Calls(builtins.eval, "open('{ran}', 'w')"), r"(builtins|__builtin__)\.eval"),
        (Calls(builtins.getattr, "a", "join"), r"(builtins|__builtin__)\.getattr"),
        (Calls(codecs.decode, b"636f", "hex"), r"_codecs\.decode"),
        (Calls(np.load, "{ran}"), r"numpy\.load"),
        (Calls(np.memmap, "{ran}", "u1", "w+", 0, (3,)), r"numpy\.memmap"),
        (Calls(np.empty, (10**9,)), r"numpy(\._core\.multiarray)?\.empty"),
        (pd.DataFrame({"a": [1]}), r"pandas\.|copy_reg\._reconstructor"),
        (pd.Series([1]), r"pandas\.|copy_reg\._reconstructor"),
        (Path("x"), "pathlib"),
        (torch.nn.Linear(1, 1), r"torch\.nn|copy_reg\._reconstructor"),
        (torch.nn.Parameter(torch.ones(2)), r"torch\._utils\._rebuild_parameter"),
        (torch.ones(2, 2), "not a plain vector"),
        (torch.arange(6.0)[::2], "not a plain vector"),
        (torch.ones(2, dtype=torch.int64), r"torch\.LongStorage"),
        (np.ma.array([1]), r"numpy\.ma\."),
        (np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), "type 'V12'"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "type 'M8'"),
        (np.array([1, "a"], dtype=object), "objects of type int"),
        (np.array([Path("x")], dtype=object), "pathlib|objects of type"),
        (np.array([1j]), "type 'c16'"),
        ({1, 2}, r"not plain data|(builtins|__builtin__)\.set"),
        (collections.Counter("aab"), "Counter"),
        ({(1, 2): 3}, "keys of type tuple"),
        (slice(1), "slice"),
        (len, "len"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_not_data_is_refused_by_name_and_never_run(load, tmp_path, protocol, thing, name):
    ran = tmp_path / "ran"
    if isinstance(thing, Calls):
        function, arguments = thing.call
        thing = Calls(
            function, *(a.format(ran=ran) if isinstance(a, str) else a for a in arguments)
        )
    data = pickle.dumps({0: [thing]}, protocol)
    with pytest.raises(ek.ReleaseError, match=rf"some\.pkl' asks for .*?({name})"):
        load(data)
    assert not ran.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\nbytes\n(I9\ntR.",  # bytes(9) is a call with content
        b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",  # a codec that unpacks
        b"c_codecs\nencode\n(Vabc\nVlatin1\nVx\ntR.",
        b"cnumpy\nndarray\n(I9\ntR.",  # an array of any size
        b"cnumpy\ndtype\n(Vf8,f8\ntR.",
        b"cnumpy\ndtype\n(VU0\nI0\nI1\ntR.",  # no byte an element: endless for free
        b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\n(I0\ntVb\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntVb\ntR.",
        b"cnumpy\ndtype\n}Vmake\nVx\nsb.",  # the state of a function of the kit
        b"cnumpy\ndtype\n(N}V__defaults__\n)stb.",
        b"cnumpy\nndarray.tofile\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0eload.__globals__\x93.",
        b"(I1\ncnumpy\ndtype\no.",
        b"(inumpy\ndtype\n.",
        b"\x80\x02cnumpy\ndtype\n)\x81.",
        b"\x80\x02\x82\x01.",
        b"Pabc\n.",
        b"\x80\x02Vabc\nQ.",
        b"\x80\x05\x97.",
        b"\x80\x04\x8f.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02]}b.",
    ],
)
def test_hostile_programs_are_refused(load, program):
    with pytest.raises(ek.ReleaseError, match=r"some\.pkl'"):
        load(program)


def shaped(shape: tuple, content: object, code: str = "f8", state_size: int = -1) -> bytes:
    """A pickled array whose shape and content are as given, whether they fit or not."""

    class Kind:
        def __reduce__(self):
            return np.dtype, (code, False, True), (3, "<", None, None, None, state_size, -1, 0)

    class Array:
        def __reduce__(self):
            start = np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b")
            return *start, (1, shape, Kind(), False, content)

    return pickle.dumps(Array(), 4)


@pytest.mark.parametrize(
    "data",
    [
        shaped((10**12,), b""),
        shaped((10**12,), b"12345678"),
        shaped((2**40, 2**40), b""),
        shaped((-1,), b""),
        shaped((1.0,), b"12345678"),
        shaped((True,), b"12345678"),
        shaped((10**9,), b"", "U9999999"),
        shaped((1,), b"12345678", "f8", 4),
        shaped((10**9,), ["a"], "O8"),
        shaped((1,), "a", "O8"),
        shaped((1,), b"12345678", "O8"),
        shaped((1,), ["12345678"], "f8"),
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # bytes of a terabyte
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\x00\x00\x00.",
        b"\x80\x05\x96\xff\xff\xff\xff\x3f\x00\x00\x00.",  # a bytearray of 274 gigabytes
        b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00.",  # a frame
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number
        b"\x80\x02r\xff\xff\xff\xff.",  # memory for 4 billion names
    ],
)
def test_a_few_bytes_cannot_claim_the_memory(load, data):
    with memory_below(10_000_000), pytest.raises(ek.ReleaseError):
        load(data)


LARGE = "x" * 1_000_000
LARGE_BYTES = b"B" + (1_000_000).to_bytes(4, "little") + LARGE.encode()
TYPE = b"cnumpy\ndtype\n(V%b\nI0\nI1\ntR"


@pytest.mark.parametrize(
    ("held", "made"),
    [
        (b"V" + LARGE.encode() + b"\n", b"c_codecs\nencode\n(h\x00Vlatin1\ntR"),
        (LARGE_BYTES, b"cnumpy.core.multiarray\nscalar\n(" + TYPE % b"U250000" + b"h\x00tR"),
        (
            LARGE_BYTES,  # NumPy copies bytes whose order it swaps
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I125000\nt"
            + TYPE % b"f8"
            + b"(I3\nV>\nNNNI-1\nI-1\nI0\ntbI00\nh\x00tb",
        ),
        (
            b"(" + b"Va\nq\x01" + b"h\x01" * 1_000_000 + b"l",
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I1000001\nt"
            + TYPE % b"O8"
            + b"I00\nh\x00tb",
        ),
    ],
    ids=["bytes", "text", "numbers", "objects"],
)
def test_a_value_that_many_calls_copy_does_not_fill_the_memory(load, held, made):
    """10,000 copies of a megabyte, from a file of two or three megabytes."""
    once = b"\x80\x04" + held + b"q\x000](" + made + b"e."
    assert len(load(once)) == 1
    data = once[:-2] + made * 10_000 + b"e."
    refusal = pytest.raises(ek.ReleaseError, match="asks for far more memory than it has bytes")
    with memory_below(100 * len(data)), refusal:
        load(data)


DOUBLED = b"]q\x00" + b"".join(
    b"](h%bh%be" % (bytes([i]), bytes([i])) + b"q%b" % bytes([i + 1]) for i in range(100)
)


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\ndtype\n(h\x64I0\nI1\ntR.",
        b"c_codecs\nencode\n(Va\nh\x64tR.",
        b"cnumpy\ndtype\n(Vf8\nI0\nI1\ntR(I3\nh\x64NNNI-1\nI-1\nI0\ntb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(h\x64I0\nh\x64h\x64tR.",
        b"cnumpy.core.multiarray\nscalar\n(h\x64h\x64tR.",
    ],
)
def test_a_list_of_2_to_the_100_entries_is_refused_without_its_text(load, program):
    """Lists of the same list twice, a hundred deep: a message that showed them would never end."""
    with pytest.raises(ek.ReleaseError):
        load(b"\x80\x04" + DOUBLED + program)


def test_a_shape_of_huge_numbers_is_refused_before_they_are_multiplied(load):
    huge = b"\x8b" + (1_000_000).to_bytes(4, "little") + b"\x01" * 1_000_000 + b"q\x000"
    array = shaped((1,), b"12345678")
    assert load(array).shape == (1,)
    number = b"(" + b"h\x00" * 100_000 + b"t"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n"
    for shape in (number, b"(h\x00t"):
        with memory_below(20_000_000), pytest.raises(ek.ReleaseError):
            load(b"\x80\x04" + huge + start + shape + TYPE % b"f8" + b"I00\nVx\ntb.")


@pytest.mark.parametrize("target", [b"cnumpy\ndtype\n", TYPE % b"f8"])
def test_an_array_without_bytes_cannot_stand_for_endless_arguments(load, target):
    """An array of shape (10**15, 0) needs no bytes, but unpacking it would fill the memory."""
    empty = shaped((10**15, 0), b"")[:-1]
    assert load(empty + b".").shape == (10**15, 0)
    start = b"\x80\x04" + target
    for use in (b"R.", b"b."):
        with memory_below(1_000_000), pytest.raises(ek.ReleaseError, match=r"some\.pkl"):
            load(start + empty[2:] + use)


def test_strings_of_numpy_become_plain_ones(load):
    found = load(pickle.dumps([np.str_("x")]))
    assert type(found[0]) is str


def test_memory_for_billions_of_names_is_not_set_aside(load):
    with memory_below(10_000_000):
        assert load(b"\x80\x02]r\xff\xff\xff\xff.") == []


@pytest.mark.slow
def test_a_deeply_nested_key_is_refused_before_it_is_hashed(load):
    with pytest.raises(ek.ReleaseError, match="keys of type tuple"):
        load(b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_truncated_anywhere_is_refused(load, protocol):
    data = pickle.dumps([SMALL, torch.arange(3.0)], protocol)
    for end in range(len(data)):
        with pytest.raises(ek.ReleaseError, match=r"some\.pkl'"):
            load(data[:end])


@given(st.binary(max_size=60))
def test_random_bytes_give_data_or_a_named_error(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("garbage") / "some.pkl"
    path.write_bytes(garbage)
    try:
        unpickling.load(path)
    except ek.ReleaseError as error:
        assert "some.pkl" in str(error)


@given(st.data())
def test_changed_bytes_give_data_or_a_named_error(tmp_path_factory, data):
    protocol = data.draw(st.sampled_from(list(PROTOCOLS)))
    whole = bytearray(pickle.dumps(SMALL, protocol))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flipped") / "some.pkl"
    path.write_bytes(whole)
    try:
        unpickling.load(path)
    except ek.ReleaseError as error:
        assert "some.pkl" in str(error)


def test_missing_and_empty_files_and_folders_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.pkl")
    for name, words in (
        ("none.pkl", "No such file"),
        ("empty.pkl", "is empty"),
        ("", "not a regular file"),
        ("pipe.pkl", "not a regular file"),
    ):
        (tmp_path / "empty.pkl").write_bytes(b"")
        with pytest.raises(ek.ReleaseError, match=words):
            unpickling.load(tmp_path / name)


def test_nothing_else_in_the_package_unpickles():
    for path in (ROOT / "embvar_kit").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        for banned in (
            "pickle.load(",
            "pickle.loads(",
            "read_pickle",
            "torch.load",
            "allow_pickle",
        ):
            assert banned not in source, f"{path.name}: {banned}"
        if path.stem != "unpickling":
            assert "Unpickler" not in source


def test_reading_does_not_import_what_a_file_names(load):
    with pytest.raises(ek.ReleaseError, match=r"antigravity\.fly"):
        load(b"cantigravity\nfly\n.")
    assert "antigravity" not in sys.modules


HOLLOW = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
BYTES = b"(I1\n(I3\ntcnumpy\ndtype\n(Vu1\nI0\nI1\ntRI00\nc_codecs\nencode\n(Vabc\nVlatin1\ntRtb"


def test_an_array_is_filled_once(load):
    assert load(HOLLOW + BYTES + b".").tolist() == [97, 98, 99]
    with pytest.raises(ek.ReleaseError, match="new content for a value of type ndarray"):
        load(HOLLOW + BYTES + BYTES + b".")


def test_a_tensor_is_no_view_of_an_array(load):
    """A view could show freed memory once the array behind it was filled."""
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(" + HOLLOW + BYTES
    with pytest.raises(ek.ReleaseError, match="not a plain vector"):
        load(program + b"I0\n(I3\nt(I1\ntI00\nNtR.")
