"""Raw content of items (images as they came, texts as UTF-8) in one LMDB file, with hashes.

A record's key is its kind, a zero byte and the item's id (its SHA-256 where LMDB's 511 bytes are too few). Its value is
a header (version, SHA-256 and length of the content, length of the id), the id where the key holds only its hash, and
the content. LMDB's own locks would leave a second file in the data set's folder, so the file itself is locked: by one
writer alone or by any number of readers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import lmdb

from utils.errors import UserError
from utils.files import TEMPORARY

FILE = "content.lmdb"
HEADER = struct.Struct("<B32sQI")  # version, SHA-256 of the content, its length in bytes, bytes of the id before it
VERSION = 1
LONGEST_KEY = 511  # of LMDB
SMALLEST_MAP, BATCH_BYTES, BATCH_ROWS = 2**24, 2**26, 4096
PLAIN, HASHED = b"=", b"#"  # what a key holds behind its kind: the id or its hash


class ContentStore:
    """One LMDB file, open for reading (by any number of processes) or for writing (by one alone).

    A process that is killed at any moment leaves all that was committed before.
    """

    def __init__(self, path: Path, write: bool, environment: lmdb.Environment, lock: IO[bytes]) -> None:
        self.path = path
        self.write = write
        self._environment = environment
        self._lock = lock
        self._reading: lmdb.Transaction | None = None

    @classmethod
    def open(cls, path: Path, write: bool = False) -> ContentStore:
        """Opens the file; with `write` it is made where it is not there.

        Raises:
            UserError: if it is no such file, is damaged, or another process has it.
        """
        lock = _locked(path, write)
        try:
            # LMDB maps at least what is in use, so that a reader needs no size of its own.
            size = max(SMALLEST_MAP, 2 * os.fstat(lock.fileno()).st_size) if write else SMALLEST_MAP
            environment = lmdb.open(
                str(path), subdir=False, readonly=not write, lock=False, map_size=size, create=write, readahead=False
            )
        except lmdb.Error as error:
            lock.close()
            if "already open" in str(error):
                raise UserError(f"{path}: this process has it open already; close it first") from None
            raise UserError(
                f"{path}: not a content store ({_reason(error)}); delete it and run prepare again"
            ) from None
        needed = _bytes_in_use(environment)
        if (size := os.fstat(lock.fileno()).st_size) < needed:
            # To read beyond the end of a mapped file would end the process.
            environment.close()
            lock.close()
            raise UserError(f"{path}: cut short ({size:,} of {needed:,} bytes); delete it and run prepare again")
        return cls(path, write, environment, lock)

    def close(self) -> None:
        """Lets go of the file; what `get` returned must not be touched afterwards."""
        if self._reading is not None:
            self._reading.abort()
            self._reading = None
        self._environment.close()
        self._lock.close()

    def __enter__(self) -> ContentStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put_many(self, kind: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Writes (id, content) rows in batches, each one transaction; what is there with the same hash stays.

        Returns:
            the number of rows.

        Raises:
            UserError: if the file is open for reading only, or the disk is full.
        """
        if not self.write:
            raise UserError(f"{self.path}: open for reading only")
        batch: list[tuple[str, bytes]] = []
        size = done = 0
        for row in rows:
            batch.append(row)
            size += len(row[1])
            if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
                done += self._put(kind, batch)
                batch, size = [], 0
        return done + self._put(kind, batch)

    def _put(self, kind: str, batch: Sequence[tuple[str, bytes]]) -> int:
        # Each key once, since a page that is written and freed in one transaction may never reach the file.
        records = {key_of(kind, name): _value(kind, name, content) for name, content in batch}
        while True:
            try:
                with self._environment.begin(write=True, buffers=True) as transaction:
                    for key, value in records.items():
                        before = transaction.get(key)
                        # Version, hash, length and id come first.
                        if before is None or before[: HEADER.size] != value[: HEADER.size]:
                            transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise UserError(f"{self.path}: cannot be written ({_reason(error)})") from None
        self._fill()
        return len(batch)

    def _fill(self) -> None:
        """Makes the file as long as LMDB counts it: free pages at its end are counted but need not be written."""
        if (needed := _bytes_in_use(self._environment)) > self.path.stat().st_size:
            os.truncate(self.path, needed)

    def get(self, kind: str, name: str) -> memoryview | None:
        """The content of an item, or None. From a reader it is the mapped file itself, not a copy, until `close`."""
        record = self._record(kind, name)
        return record.content if record else None

    def digest(self, kind: str, name: str) -> bytes | None:
        """SHA-256 of an item's content as the header has it (32 bytes), or None."""
        record = self._record(kind, name)
        return record.digest if record else None

    def size(self, kind: str, name: str) -> int:
        """Length of an item's content in bytes; 0 where there is none."""
        record = self._record(kind, name)
        return len(record.content) if record else 0

    def summary(self) -> str:
        """What the file holds, in a line."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds().items()) or "nothing"
        return f"{self.path}: {counts}; {self.path.stat().st_size:,} bytes"

    def kinds(self) -> dict[str, int]:
        """The kinds of content and how many items have it."""
        counts: dict[str, int] = {}
        for key, _ in self._records(b""):
            kind = _kind_of(key)
            counts[kind] = counts.get(kind, 0) + 1
        return counts

    def keys(self, kind: str) -> list[str]:
        """The ids of the items with content of a kind, sorted."""
        return sorted(_id_of(key, value) for key, value in self._records(_prefix(kind)))

    def count(self, kind: str) -> int:
        """How many items have content of a kind."""
        return self.kinds().get(kind, 0)

    def verify(self) -> list[str]:
        """Recomputes every hash; returns a line for each record that is not what was written."""
        problems = []
        try:
            for key, value in self._records(b""):
                problem = _Record(value).problem(key)
                if problem:
                    problems.append(problem)
        except lmdb.Error as error:
            problems.append(f"{self.path.name}: its pages cannot be followed to the end ({_reason(error)})")
        return problems

    def _transaction(self) -> lmdb.Transaction:
        if self._reading is None:
            self._reading = self._environment.begin(buffers=True)
        return self._reading

    def _record(self, kind: str, name: str) -> _Record | None:
        key = key_of(kind, name)
        found: Any
        if self.write:
            with self._environment.begin() as transaction:
                found = transaction.get(key)
        else:
            found = self._transaction().get(key)
        return None if found is None else _Record(memoryview(found))

    def _records(self, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Keys and values in order of the keys, from the first that starts with `prefix` on while they do."""
        own = self._environment.begin(buffers=True) if self.write else None
        try:
            with (own or self._transaction()).cursor() as cursor:
                going = cursor.set_range(prefix) if prefix else cursor.first()
                while going and bytes(cursor.key()).startswith(prefix):
                    yield bytes(cursor.key()), memoryview(cursor.value())
                    going = cursor.next()
        finally:
            if own is not None:
                own.abort()


def compact(path: Path) -> tuple[int, int]:
    """Writes the file again without free pages, in order of the keys; returns its bytes before and after.

    Equal content then is equal in every byte, however it came in. The old file stays until the new one is whole.

    Raises:
        UserError: if a record is damaged, another process has the file, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    if not path.is_file():
        raise UserError(f"content store {path}: no such file; `prepare` makes it from raw content")
    with ContentStore.open(path, write=True) as store:
        before = path.stat().st_size
        temporary.unlink(missing_ok=True)  # of a process that was killed
        try:
            _copy(store, temporary)
            os.replace(temporary, path)
        except lmdb.Error as error:
            raise UserError(f"{path}: cannot be compacted ({_reason(error)})") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return before, path.stat().st_size


def _copy(store: ContentStore, target: Path) -> None:
    size = SMALLEST_MAP + 2 * sum(len(value) + LONGEST_KEY for _, value in store._records(b""))
    with lmdb.open(str(target), subdir=False, lock=False, map_size=_whole_pages(size)) as environment:
        transaction = environment.begin(write=True)
        written = 0
        try:
            for key, value in store._records(b""):
                if problem := _Record(value).problem(key):
                    raise UserError(f"{store.path}: {problem}; delete the file and run prepare again")
                transaction.put(key, value, append=True)
                written += len(value)
                if written >= BATCH_BYTES:
                    transaction.commit()
                    transaction, written = environment.begin(write=True), 0
            transaction.commit()
        except BaseException:  # a transaction left open would keep the environment from closing
            transaction.abort()
            raise
        environment.sync(True)


def _whole_pages(size: int) -> int:
    return -(-size // 2**20) * 2**20


def key_of(kind: str, name: str) -> bytes:
    """The key of an item's content.

    Raises:
        ValueError: for a kind that is no word of lower-case letters, digits and _.
    """
    plain = _prefix(kind) + PLAIN + name.encode("utf-8", "surrogatepass")
    return plain if len(plain) <= LONGEST_KEY else _prefix(kind) + HASHED + _sha256(name)


def _prefix(kind: str) -> bytes:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", kind):
        raise ValueError(f"kind of content: expected a word of lower-case letters, digits and _, got {kind!r}")
    return kind.encode() + b"\0"


def _sha256(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()


def _value(kind: str, name: str, content: bytes) -> bytes:
    hashed = key_of(kind, name).startswith(_prefix(kind) + HASHED)
    front = name.encode("utf-8", "surrogatepass") if hashed else b""
    return HEADER.pack(VERSION, hashlib.sha256(content).digest(), len(content), len(front)) + front + content


def _kind_of(key: bytes) -> str:
    return key.partition(b"\0")[0].decode("utf-8", "replace")


def _id_of(key: bytes, value: memoryview) -> str:
    _, _, rest = key.partition(b"\0")
    front = rest[1:] if rest[:1] == PLAIN else _Record(value).front
    return front.decode("utf-8", "surrogatepass")


class _Record:
    """A value taken apart, without copies."""

    def __init__(self, value: memoryview) -> None:
        self.value = value
        self.version, self.digest, self.length, front = (
            HEADER.unpack_from(value) if len(value) >= HEADER.size else (0, b"", 0, 0)
        )
        self.front = bytes(value[HEADER.size : HEADER.size + front])
        self.content = value[HEADER.size + front :]

    def problem(self, key: bytes) -> str:
        """What is wrong with it, or an empty string."""
        rest = key.partition(b"\0")[2]
        name = f"{_kind_of(key)} of item {(self.front or rest[1:]).decode('utf-8', 'replace')!r}"
        if self.version != VERSION:
            return f"{name}: a header of another format"
        if len(self.content) != self.length:
            return f"{name}: {len(self.content):,} bytes, expected {self.length:,}"
        if hashlib.sha256(self.content).digest() != self.digest:
            return f"{name}: its content does not have the hash it was written with"
        if rest[:1] == HASHED and hashlib.sha256(self.front).digest() != rest[1:]:
            return f"{name}: its id does not have the hash it was written with"
        return ""


def _locked(path: Path, write: bool) -> IO[bytes]:
    """The file itself, open and locked until it is closed.

    Raises:
        UserError: if it is not there, or another process has it.
    """
    for _ in range(100):  # a compaction may put another file in place between opening and locking
        try:
            file = open(path, "ab" if write else "rb")  # noqa: SIM115 (held until closed)
        except FileNotFoundError:
            what = (
                f"no folder {path.parent} to make it in"
                if write
                else "no such file; `prepare` makes it from raw content"
            )
            raise UserError(f"content store {path}: {what}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror})") from None
        try:
            import fcntl
        except ImportError:  # not on Windows, where processes are on their own
            return file
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if write else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            file.close()
            doing = "reads or writes" if write else "writes"
            raise UserError(f"{path}: another process {doing} it; wait for it or stop it first") from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
    raise UserError(f"{path}: another process keeps replacing it; stop it first")


def _bytes_in_use(environment: lmdb.Environment) -> int:
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _reason(error: lmdb.Error) -> str:
    return str(error).rpartition(": ")[2].partition("\n")[0]
