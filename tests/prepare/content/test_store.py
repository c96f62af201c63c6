from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_tools import run_here
from helpers import problems_of

from prepare.content import store as store_module
from prepare.content.store import ContentStore, compact, key_of

SOURCE = Path(store_module.__file__).resolve().parents[2]


def rows_of(n: int, size: int = 200, seed: int = 0) -> list[tuple[str, bytes]]:
    random = np.random.default_rng(seed)
    return [(f"B{number:05}", random.bytes(size + number)) for number in range(n)]


def filled(path: Path, rows: list[tuple[str, bytes]], kind: str = "image") -> Path:
    with ContentStore.open(path, write=True) as store:
        store.put_many(kind, rows)
    return path


def test_gives_back_the_bytes_as_they_came(tmp_path: Path) -> None:
    rows = [*rows_of(50), ("empty", b""), ("naïve id/with ☃", b"\x00\xff")]
    path = filled(tmp_path / "content.lmdb", rows)
    with ContentStore.open(path) as store:
        for name, content in rows:
            found = store.get("image", name)
            assert found is not None
            assert bytes(found) == content
            assert store.digest("image", name) == hashlib.sha256(content).digest()
            assert store.size("image", name) == len(content)
        assert store.get("image", "nobody") is None
        assert store.digest("text", rows[0][0]) is None
        assert store.size("text", rows[0][0]) == 0
        assert store.keys("image") == sorted(name for name, _ in rows)
        assert (store.count("image"), store.count("text")) == (52, 0)
        assert store.summary().startswith(f"{path}: 52 image; ")
        assert store.verify() == []
    assert sorted(os.listdir(tmp_path)) == ["content.lmdb"]  # no second file, which would differ from run to run


def test_putting_again_changes_what_is_new_only(tmp_path: Path) -> None:
    path = tmp_path / "content.lmdb"
    rows = rows_of(10)
    with ContentStore.open(path, write=True) as store:
        assert store.put_many("text", rows) == 10
        before = path.read_bytes()
        assert store.put_many("text", rows) == 10
        assert path.read_bytes()[8192:] == before[8192:]  # beyond the two pages that count transactions
        store.put_many("text", [*rows[:8], (rows[8][0], b"other"), ("new", b"1"), ("new", b"2")])
        found = store.get("text", "new")
        assert found is not None
        assert bytes(found) == b"2"  # the last one
        assert (store.count("text"), bytes(store.get("text", rows[8][0]) or b"")) == (11, b"other")


def test_kinds_are_apart_even_where_one_starts_like_the_other(tmp_path: Path) -> None:
    path = tmp_path / "content.lmdb"
    with ContentStore.open(path, write=True) as store:
        store.put_many("text", [("a", b"1")])
        store.put_many("text_long", [("a", b"2"), ("b", b"3")])
        store.put_many("audio", [("a", b"4")])
    with ContentStore.open(path) as store:
        assert store.kinds() == {"audio": 1, "text": 1, "text_long": 2}
        assert store.keys("text") == ["a"]
        assert store.keys("text_long") == ["a", "b"]
    for kind in ("", "Text", "te\0xt", "a b", "x" * 65):
        with pytest.raises(ValueError, match="kind of content"):
            key_of(kind, "a")


def test_ids_too_long_for_a_key_are_kept(tmp_path: Path) -> None:
    names = ["x" * 600, "x" * 601, "é" * 300, "x" * 400]
    path = filled(tmp_path / "content.lmdb", [(name, name[-10:].encode() + bytes([k])) for k, name in enumerate(names)])
    with ContentStore.open(path) as store:
        assert store.keys("image") == sorted(names)
        for number, name in enumerate(names):
            found = store.get("image", name)
            assert found is not None
            assert bytes(found) == name[-10:].encode() + bytes([number])
        assert store.verify() == []


def test_the_map_grows_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SMALLEST_MAP", 2**16)
    rows = rows_of(300, size=20_000)
    path = filled(tmp_path / "content.lmdb", rows)
    assert path.stat().st_size > 50 * 2**16
    with ContentStore.open(path) as store:
        assert store.count("image") == 300
        assert store.verify() == []


def test_batches_are_transactions_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH_ROWS", 4)

    def failing() -> Iterator[tuple[str, bytes]]:
        for number, row in enumerate(rows_of(100)):
            if number == 10:
                raise ZeroDivisionError
            yield row

    path = tmp_path / "content.lmdb"
    with ContentStore.open(path, write=True) as store, pytest.raises(ZeroDivisionError):
        store.put_many("image", failing())
    with ContentStore.open(path) as store:
        assert store.count("image") == 8  # two whole batches


def test_what_was_damaged_is_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "content.lmdb", rows_of(20, size=5000))
    with ContentStore.open(path) as store:
        content = bytes(store.get("image", "B00007") or b"")
    data = bytearray(path.read_bytes())
    data[data.find(content[:64]) + 100] ^= 1
    path.write_bytes(data)
    with ContentStore.open(path) as store:
        (problem,) = store.verify()
    assert problem == "image of item 'B00007': its content does not have the hash it was written with"
    (problem,) = problems_of(lambda: compact(path))
    assert "B00007" in problem
    assert path.read_bytes() == data  # kept as it was
    assert sorted(os.listdir(tmp_path)) == ["content.lmdb"]


def test_compacting_makes_equal_content_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH_BYTES", 50_000)  # several transactions
    rows = rows_of(200, size=3000)
    one = filled(tmp_path / "one.lmdb", rows)
    other = tmp_path / "other.lmdb"
    with ContentStore.open(other, write=True) as store:
        store.put_many("image", [(name, b"old" * 500) for name, _ in rows[50:150]])
    with ContentStore.open(other, write=True) as store:
        store.put_many("image", reversed(rows))
    assert one.read_bytes() != other.read_bytes()
    before, after = compact(other)
    assert after < before
    compact(one)
    assert one.read_bytes() == other.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.lmdb", "other.lmdb"]
    with ContentStore.open(one) as store:
        assert store.verify() == []
        assert [bytes(store.get("image", name) or b"") for name, _ in rows] == [content for _, content in rows]


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "content.lmdb"
    (problem,) = problems_of(lambda: ContentStore.open(path))
    assert "no such file" in problem
    for content in (b"", b"\0" * 100, b"nonsense" * 5000):
        path.write_bytes(content)
        (problem,) = problems_of(lambda: ContentStore.open(path))
        assert "not a content store" in problem
        assert path.read_bytes() == content
    (problem,) = problems_of(lambda: ContentStore.open(tmp_path / "none" / "content.lmdb", write=True))
    assert "no folder" in problem


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "content.lmdb", rows_of(50, size=4000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for write in (False, True):
        (problem,) = problems_of(lambda write=write: ContentStore.open(path, write=write))
        assert "cut short" in problem
        assert f"{len(whole):,} bytes" in problem


def test_a_reader_does_not_write(tmp_path: Path) -> None:
    path = filled(tmp_path / "content.lmdb", rows_of(3))
    with ContentStore.open(path) as store:
        (problem,) = problems_of(lambda: store.put_many("image", rows_of(1)))
    assert "reading only" in problem


def _open_elsewhere(path: Path, write: bool) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
sys.path.insert(0, {str(SOURCE)!r})
from pathlib import Path
from prepare.content.store import ContentStore
from utils.errors import UserError
try:
    with ContentStore.open(Path({str(path)!r}), write={write}) as store:
        print(store.count("image"))
except UserError as error:
    print(error)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)


def test_one_writer_alone_and_any_number_of_readers(tmp_path: Path) -> None:
    path = filled(tmp_path / "content.lmdb", rows_of(3))
    with ContentStore.open(path, write=True):
        assert "another process reads or writes it" in _open_elsewhere(path, write=True).stdout
        assert "another process writes it" in _open_elsewhere(path, write=False).stdout
        (problem,) = problems_of(lambda: ContentStore.open(path))
        assert "another process writes it" in problem
    with ContentStore.open(path):
        assert _open_elsewhere(path, write=False).stdout == "3\n"
        assert "another process reads or writes it" in _open_elsewhere(path, write=True).stdout
        (problem,) = problems_of(lambda: ContentStore.open(path))
        assert "open already" in problem
    assert _open_elsewhere(path, write=True).stdout == "3\n"


def test_the_command_lists_verifies_and_compacts(tmp_path: Path) -> None:
    places = ("--data_path", tmp_path)
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "content.lmdb"
    for action in ("list", "verify", "compact"):
        outcome = run_here("content", action, "toy", *places)
        assert (outcome.code, outcome.out) == (2, "")
        assert "no such file" in outcome.err
        assert not path.exists()
    filled(path, rows_of(20, size=5000))
    filled(path, [(name, b"short") for name, _ in rows_of(20)], "image")
    filled(path, rows_of(3), "text")
    before = path.stat().st_size
    outcome = run_here("content", "list", "toy", *places)
    assert (outcome.code, outcome.out) == (0, f"{path}: 20 image, 3 text; {before:,} bytes\n")
    outcome = run_here("content", "compact", "toy", *places)
    assert (outcome.code, outcome.out) == (0, f"{path}: {before:,} bytes before, {path.stat().st_size:,} after\n")
    assert path.stat().st_size < before / 2
    outcome = run_here("content", "verify", "toy", *places)
    assert outcome.code == 0
    assert outcome.out.endswith("every record has the hash it was written with\n")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"short", b"SHORT", 1))
    outcome = run_here("content", "verify", "toy", *places)
    assert outcome.code == 1
    assert re.search(r"damaged: image of item 'B\d+': its content does not have the hash", outcome.out)
    assert outcome.out.endswith("1 damaged records\n")
    for words, said in (
        (("lst", "toy"), "did you mean 'list'?"),
        (("list",), "NAME is missing"),
        (("list", "../toy"), "expected a name of letters, digits, _ . and -, got '../toy'"),
        (("list", "toy", "--data", "x"), "unknown option --data (did you mean 'data_path'?)"),
    ):
        outcome = run_here("content", *words)
        assert outcome.code == 2
        assert said in outcome.err
    assert "usage: main.py content" in run_here("content", "--help").out
