"""Pickles of strangers: data come through, everything else is refused by name and never run."""

from __future__ import annotations

import builtins
import codecs
import collections
import os
import pickle
import struct
import sys
import tracemalloc
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
        "scalars": [np.float32(1.5), np.float64(2), np.int64(-4), np.bool_(True), np.str_("x")],
        "plain": [1, -(2**70), 2.5, None, True, b"", b"x\xff", (1, 2), ()],
        "text": [np.array(["a", "bcd"]), np.array(["a", "bcd"], dtype=object)],
        "turned": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[1:],
        "swapped": np.arange(3, dtype=">i4"),
    }
}


@pytest.fixture
def load(tmp_path):
    """``load(data)``: what the kit reads from a file of these bytes."""

    def read(data: bytes):
        path = tmp_path / "some.pkl"
        path.write_bytes(data)
        return unpickling.load(path)

    return read


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_come_as_pickle_itself_gives_them(load, protocol):
    data = pickle.dumps(SMALL, protocol)
    assert repr(load(data)) == repr(pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_modules_of_old_numpy_are_known(load, protocol):
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
def test_vectors_of_pytorch_come_as_arrays(load, protocol):
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
        (np.array([1, "a"], dtype=object), "objects with a int"),
        (np.array([Path("x")], dtype=object), "pathlib|objects with"),
        (np.array([1j]), "type 'c16'"),
        ({1, 2}, r"no plain data|(builtins|__builtin__)\.set"),
        (collections.Counter("aab"), "Counter"),
        ({(1, 2): 3}, "a tuple for a key"),
        (slice(1), "slice"),
        (len, "len"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_data_is_refused_by_name_and_never_run(load, tmp_path, protocol, thing, name):
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
def test_programs_that_try_something_are_refused(load, program):
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
    tracemalloc.start()
    try:
        with pytest.raises(ek.ReleaseError):
            load(data)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_memory_for_billions_of_names_is_not_set_aside(load):
    tracemalloc.start()
    try:
        assert load(b"\x80\x02]r\xff\xff\xff\xff.") == []
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_key_nested_deeply_is_refused_before_it_is_hashed(load):
    with pytest.raises(ek.ReleaseError, match="a tuple for a key"):
        load(b"\x80\x02}N" + b"\x85" * 1_000_000 + b"Ns.")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cut_anywhere_it_is_named_as_truncated(load, protocol):
    data = pickle.dumps([SMALL, torch.arange(3.0)], protocol)
    for end in range(len(data)):
        with pytest.raises(ek.ReleaseError, match=r"some\.pkl'"):
            load(data[:end])


@given(st.binary(max_size=60))
def test_garbage_gives_data_or_the_kits_error(tmp_path_factory, garbage):
    path = tmp_path_factory.mktemp("garbage") / "some.pkl"
    path.write_bytes(garbage)
    try:
        unpickling.load(path)
    except ek.ReleaseError as error:
        assert "some.pkl" in str(error)


@given(st.data())
def test_a_flipped_byte_gives_data_or_the_kits_error(tmp_path_factory, data):
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
        ("", "no file"),
        ("pipe.pkl", "no file"),
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
    with pytest.raises(ek.ReleaseError, match="has content to be given other content"):
        load(HOLLOW + BYTES + BYTES + b".")


def test_a_tensor_is_no_view_of_an_array(load):
    """A view would show freed memory once the array behind it was filled again."""
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(" + HOLLOW + BYTES
    with pytest.raises(ek.ReleaseError, match="not a plain vector"):
        load(program + b"I0\n(I3\nt(I1\ntI00\nNtR.")
