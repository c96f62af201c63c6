"""Pickles: what is read exactly, and what is refused before anything in it runs."""

from __future__ import annotations

import builtins
import collections
import contextlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import Planted, problems_of

from utils.data.pickles import load_pickle, read_pickle
from utils.errors import UserError

MATRIX = sp.random(7, 5, 0.4, "csr", np.float32, random_state=0)
PROTOCOLS = (0, 2, 3, pickle.HIGHEST_PROTOCOL)
ARRAYS: dict[str, Any] = {
    "floats": np.arange(12, dtype=np.float32).reshape(3, 4),
    "by columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big end first": np.arange(5, dtype=">i4"),
    "a part": np.arange(20)[3:15:2],
    "turned": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "empty": np.zeros((0, 4)),
    "one": np.array(5),
    "truth": np.array([True, False]),
    "texts": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "complex": np.array([1j]),
}


def same(a: Any, b: Any) -> bool:
    """Equal in type, shape and content, at any depth."""
    if sp.issparse(a):
        return a.format == b.format and a.shape == b.shape and a.dtype == b.dtype and not (a != b).nnz
    if isinstance(a, np.ndarray) and a.dtype != object:
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and all(same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def as_old(content: bytes) -> bytes:
    """The same pickle (of protocol 3 at most) under the names that modules had before."""
    for new, old in (
        (b"numpy._core.", b"numpy.core."),
        (b"scipy.sparse._csr", b"scipy.sparse.csr"),
        (b"scipy.sparse._csc", b"scipy.sparse.csc"),
        (b"scipy.sparse._coo", b"scipy.sparse.coo"),
        (b"cbuiltins\n", b"c__builtin__\n"),
    ):
        content = content.replace(new, old)
    return content


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_scalars_and_containers(protocol: int) -> None:
    dictionary = collections.defaultdict(list, {1: [2, 3]})
    value = {
        **ARRAYS,
        "plain": [1, 2.5, True, None, "é", b"\xff\0", 10**30, 1j, (1, (2,)), {3}, frozenset([4]), {}, [], ()],
        "scalars": [np.float32(0.1), np.int64(-3), np.bool_(True)],
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "default": dictionary,
        "objects": np.array([[1, 2], [3]], dtype=object),
        "dtype": np.dtype("<f4"),
    }
    expected = {**value, "ordered": {"b": 1, "a": 2}, "default": {1: [2, 3]}}
    assert same(expected, read_pickle(pickle.dumps(value, protocol), "x"))
    if protocol <= 3:
        assert same(expected, read_pickle(as_old(pickle.dumps(value, protocol)), "x"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sparse_matrices(protocol: int) -> None:
    matrices = [MATRIX, MATRIX.tocsc(), MATRIX.tocoo(), sp.csr_matrix((3, 4)), MATRIX.astype(bool).tocoo()]
    content = pickle.dumps(matrices, protocol)
    assert same(matrices, read_pickle(content, "x"))
    if protocol <= 3:
        assert as_old(content) != content
        assert same(matrices, read_pickle(as_old(content), "x"))
    (array,) = read_pickle(pickle.dumps([sp.csr_array(MATRIX)], protocol), "x")
    assert same(MATRIX, array)


def test_pickles_of_python_2() -> None:
    def text(word: bytes) -> bytes:
        return b"U" + bytes([len(word)]) + word

    def array(kind: bytes, content: bytes, n: int) -> bytes:
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR(K\x01K"
            + bytes([n]) + b"\x85cnumpy\ndtype\n(" + text(kind) + b"K\x00K\x01tR(K\x03" + text(b"<")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(content) + b"tb"
        )  # fmt: skip

    numbers = np.array([-1, 2**40, 255, 128], dtype="<i8")  # bytes that are no ASCII
    found = read_pickle(b"\x80\x02" + array(b"i8", numbers.tobytes(), 4) + b".", "x")
    assert same(numbers, found)
    matrix = sp.csr_matrix(np.array([[0, 1.5, 0], [2, 0, 3]]))
    state = {"indices": (b"i4", matrix.indices), "indptr": (b"i4", matrix.indptr), "data": (b"f8", matrix.data)}
    parts = b"".join(text(k.encode()) + array(kind, a.tobytes(), len(a)) for k, (kind, a) in state.items())
    content = (
        b"\x80\x02cscipy.sparse.csr\ncsr_matrix\n)\x81}(" + text(b"_shape") + b"K\x02K\x03\x86" + parts
        + text(b"maxprint") + b"K2ub."
    )  # fmt: skip
    assert same(matrix, read_pickle(content, "x"))
    scalar = (
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n("
        + text(b"f8")
        + b"K\x00K\x01tR(K\x03"
        + text(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + text(struct.pack("<d", 0.5))
        + b"tR."
    )
    assert read_pickle(scalar, "x") == 0.5


def test_what_stands_twice_is_made_once() -> None:
    array = np.arange(3)
    found = read_pickle(pickle.dumps([array, {"again": array}]), "x")
    assert found[0] is found[1]["again"]
    many: list[Any] = []
    for _ in range(60):  # 2^60 lists, were each made for itself
        many = [many, many]
    assert read_pickle(pickle.dumps(many), "x")


class Carrier:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def harmful(mark: Path) -> dict[str, Any]:
    command = f"mkdir {mark}"
    held = np.empty(2, dtype=object)
    held[:] = [1, Planted(mark)]
    return {
        "system": Carrier(os.system, command),
        "eval": Carrier(builtins.eval, f"__import__('os').system({command!r})"),
        "nested": [np.arange(3), {"a": (1, Carrier(list, (Carrier(os.mkdir, str(mark)),)))}],
        "in an object array": held,
        "in a sparse matrix": Carrier(sp.csr_matrix, Planted(mark)),
        "attribute": Carrier(getattr, "text", "upper"),
        "a class": collections.Counter,
        "after arrays": [MATRIX, Planted(mark)],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", list(harmful(Path("mark"))))
def test_anything_else_is_refused_before_it_runs(tmp_path: Path, name: str, protocol: int) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "graph.pkl"
    path.write_bytes(pickle.dumps(harmful(mark)[name], protocol))
    (problem,) = problems_of(lambda: load_pickle(path))
    named = {
        "system": "posix.system",
        "eval": f"{'__builtin__' if protocol < 3 else 'builtins'}.eval",
        "attribute": f"{'__builtin__' if protocol < 3 else 'builtins'}.getattr",
        "a class": "collections.Counter",
    }
    assert problem.startswith(f"graph.pkl: refused: it names {named.get(name, 'posix.mkdir')};")
    assert "nothing in it was run" in problem
    assert not mark.exists()


def test_that_the_harmful_ones_would_run(tmp_path: Path) -> None:
    for number, name in enumerate(("system", "eval", "nested", "in an object array", "after arrays")):
        mark = tmp_path / str(number)
        pickle.loads(pickle.dumps(harmful(mark)[name]))
        assert mark.is_dir(), name


def assembled(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


HAND_MADE = {
    # The name is put together from texts that lie in the memo.
    "memo": assembled(
        short("posix"), b"\x94", short("mkdir"), b"\x94", b"00", b"h\x00h\x01\x93", short("MARK"), b"\x85R"
    ),
    # An allowed class first, then another object under the same place of the memo.
    "memo overwritten": assembled(
        b"cnumpy\nndarray\nq\x000", b"cposix\nmkdir\nq\x000", b"h\x00", short("MARK"), b"\x85R"
    ),
    "inst": b"(S'MARK'\niposix\nmkdir\n.",
    "obj": b"(cposix\nmkdir\nS'MARK'\no.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pposix.mkdir\n.",
    "dotted": assembled(short("numpy"), short("ndarray.__class__"), b"\x93."),
    "state of a function": assembled(b"cnumpy._core.multiarray\nscalar\n", b"}", short("a"), b"K\x01s", b"b"),
    "state of a class": assembled(b"cscipy.sparse._csr\ncsr_matrix\n", b"}", short("form"), b"K\x01s", b"b"),
    "slots of a class": assembled(b"cscipy.sparse._csr\ncsr_matrix\n", b"N}", short("form"), b"K\x01s", b"\x86", b"b"),
    "a class of arrays of their own": assembled(
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"cscipy.sparse._csr\ncsr_matrix\n",
        b"K\x00\x85",
        short("b"),
        b"\x87R",
    ),
    "a type called": assembled(b"cnumpy\nndarray\nK\x05\x85R"),
    "a name alone": assembled(b"cnumpy._core.multiarray\nscalar\n"),
    "holds itself": b"\x80\x02]q\x00h\x00a.",
    "not whole": pickle.dumps(MATRIX)[:-20],
    "no pickle": b"PK\x03\x04 something else",
    "nothing": b"",
    "very deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("name", list(HAND_MADE))
def test_made_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = problems_of(lambda: read_pickle(HAND_MADE[name], "x.pkl"))
    assert problem.startswith(("x.pkl: refused: ", "x.pkl: not a pickle that can be read: "))
    assert os.listdir(tmp_path) == []
    # The table of names is as it was.
    assert same(MATRIX, read_pickle(pickle.dumps(MATRIX), "x"))


def changed(**state: Any) -> bytes:
    """A csr matrix whose attributes were set to something that does not fit."""
    matrix = sp.csr_matrix(np.eye(3, dtype=np.float32))
    matrix.__dict__.update(state)
    return pickle.dumps(matrix)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(indices=np.array([0, 1, 9], dtype=np.int32)), "index beyond its shape"),
        (changed(indices=np.array([0, -1, 2], dtype=np.int32)), "index beyond its shape"),
        (changed(indptr=np.array([0, 2, 1, 3], dtype=np.int32)), "indptr does not fit"),
        (changed(indptr=np.array([0, 3], dtype=np.int32)), "indptr does not fit"),
        (changed(data=np.zeros(2, dtype=np.float32)), "unlike lengths"),
        (changed(data=np.array(["a", "b", "c"])), "data are no numbers"),
        (changed(data="abc"), "without indices, indptr, data"),
        (changed(_shape=(3,)), "not of two dimensions"),
        (pickle.dumps(np.array([(1, 2.0)], dtype="i4,f8")), "array of records"),
        (pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]")), "it holds an array of"),
        (pickle.dumps({(1, np.float32(2)): np.arange(3)}).replace(b"K\x01", b"}", 1), "refused|not a pickle"),
    ],
)
def test_what_does_not_fit_together(content: bytes, words: str) -> None:
    (problem,) = problems_of(lambda: read_pickle(content, "x.pkl"))
    assert any(word in problem for word in words.split("|")), problem


def test_damaged_pickles_never_end_in_a_traceback() -> None:
    random = np.random.default_rng(0)
    content = pickle.dumps([MATRIX, {"a": np.arange(9), "b": [1, "x"]}, MATRIX.tocoo()], 4)
    for _ in range(1500):
        broken = bytearray(content)
        for place in random.integers(0, len(content), int(random.integers(1, 4))):
            broken[place] = int(random.integers(256))
        with contextlib.suppress(UserError):  # anything else is a traceback
            read_pickle(bytes(broken), "x.pkl")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert problems_of(lambda: load_pickle(tmp_path / "x.pkl")) == [f"{tmp_path / 'x.pkl'}: no such file"]
    assert "cannot be read" in problems_of(lambda: load_pickle(tmp_path))[0]
