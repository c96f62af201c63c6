"""Downloads that resume where they broke off and are checked before they count."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import string
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from prepare.pipeline import sha256_of
from utils.errors import UserError
from utils.files import make_folder, take_lock, write_json

BLOCK = 2**20
TRIES = 5  # in a row without a byte more
PAUSE = 1.0  # seconds before the second try, doubled each time
LONGEST_PAUSE = 60.0
Progress = Callable[[int, "int | None"], None]  # bytes so far, bytes in all where known


class NotFetched(UserError):
    """What lies with the address or its server, not with this machine: other files may still come."""


class Failed(Exception):
    """A try that may go better the next time."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        self.pause = pause
        super().__init__(reason)


@dataclass
class Part:
    """What is there of a file: `NAME.part`, and beside it where it comes from.

    Attributes:
        path: of the part.
        url: the address.
        checked: whether a checksum will tell if parts of two states of the file came together.
        validator: what the server called this state of the file (strong ETag or Last-Modified); empty: nothing.
        total: its bytes in all, where known.
    """

    path: Path
    url: str
    checked: bool
    validator: str = ""
    total: int | None = None

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def load(self) -> None:
        """Takes up what an earlier process left."""
        try:
            content = json.loads(self.record.read_text())
            same = content["url"] == self.url
            self.validator, self.total = str(content["validator"]), content["total"]
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            self.remove()

    def restart(self, validator: str = "", total: int | None = None) -> None:
        """Begins from the first byte."""
        self.path.unlink(missing_ok=True)
        self.validator, self.total = validator, total
        write_json(self.record, {"url": self.url, "validator": validator, "total": total})

    def remove(self) -> None:
        """Leaves nothing of it."""
        self.validator, self.total = "", None
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


def download(
    url: str,
    path: Path,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout: float = 30,
) -> None:
    """Fetches a file unless it is there; it appears under its name only when it is whole and right.

    What is there of it already is kept in `NAME.part` and continued, if the server says that the file is still the same,
    or if its checksum will tell. Dropped connections and errors of the server are tried again, five times in a row.

    Args:
        url: http or https.
        path: where to; its folder is made.
        size: in bytes, where known.
        sha256: in hexadecimal digits, where known.
        progress: called with the bytes so far and in all (None: unknown).
        timeout: in seconds, of the connection and of each wait for more bytes.

    Raises:
        UserError: if the server refuses, if what comes is not what is expected, or if a file is there that is not.
    """
    if not url.startswith(("http://", "https://")):
        raise NotFetched(f"{url}: expected an address that begins with http:// or https://")
    if path.exists():
        if problem := _difference(path, size, sha256):
            raise UserError(f"{path}: is there but {problem}; move it away and it is fetched anew")
        return
    make_folder(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    lock = take_lock(lock_path)
    if lock is None:
        raise UserError(f"{path}: another process is fetching it; wait for it or stop it first")
    try:
        part = Part(path.with_name(f"{path.name}.part"), url, checked=sha256 is not None)
        _fetch(part, path, size, sha256, progress, timeout)
    finally:
        lock_path.unlink(missing_ok=True)
        lock.close()


def download_all(
    files: Mapping[str, tuple[str, Path]], at_once: int, progress: Progress | None = None
) -> dict[str, str]:
    """Fetches many files, several at a time; what is there is kept, what a killed call has begun is gone on with.

    Args:
        files: address and place of each, by name.
        at_once: how many are fetched at a time.
        progress: called with the number of files done and all of them.

    Returns:
        why, for each that could not be fetched, in the order of `files`.

    Raises:
        UserError: if a file cannot be written.
    """
    waiting = iter(files.items())
    ended: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
    taking, stopped = threading.Lock(), threading.Event()

    def work() -> None:
        while not stopped.is_set():
            with taking:
                job = next(waiting, None)
            if job is None:
                return
            name, (url, path) = job
            try:
                download(url, path)
            except Exception as error:  # the caller's to judge
                ended.put((name, error))
            else:
                ended.put((name, None))

    # Daemons: who stops the program need not wait for them, since a download may end at any moment.
    for _ in range(min(at_once, len(files))):
        threading.Thread(target=work, daemon=True).start()
    failed: dict[str, str] = {}
    try:
        for done in range(1, len(files) + 1):
            name, error = ended.get()
            if isinstance(error, NotFetched):
                failed[name] = str(error)
            elif error is not None:
                raise error
            if progress:
                progress(done, len(files))
    finally:
        stopped.set()
    return {name: failed[name] for name in files if name in failed}


def _difference(path: Path, size: int | None, sha256: str | None) -> str:
    """What a file is and was not expected to be, or nothing."""
    found = path.stat().st_size
    if size is not None and found != size:
        return f"has {found:,} bytes, expected {size:,}"
    if sha256 is not None and (digest := sha256_of(path)) != sha256.lower():
        return f"has SHA-256 {digest}, expected {sha256.lower()}"
    return ""


def _fetch(
    part: Part, path: Path, size: int | None, sha256: str | None, progress: Progress | None, timeout: float
) -> None:
    part.load()
    resumed = part.size > 0
    while True:
        _all_bytes(part, size, progress, timeout)
        problem = _difference(part.path, size, sha256)
        if not problem:
            break
        part.remove()
        # A part from before may have been of another file: once more from the first byte.
        if not resumed:
            raise NotFetched(
                f"{part.url}: what came {problem}; it was thrown away. Check the address and what is expected"
            )
        resumed = False
    with open(part.path, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part.path, path)
    part.remove()


def _all_bytes(part: Part, size: int | None, progress: Progress | None, timeout: float) -> None:
    """Fetches until all is there, trying again where that may help."""
    failures, most, refused = 0, part.size, False
    while part.size != part.total or part.total is None:
        try:
            if _one_request(part, size, progress, timeout):
                return
            # The server has less than the part: that was of another file.
            if refused or part.size == 0:
                raise NotFetched(f"{part.url}: the server answers 416 (no such range) to a request for the whole file")
            refused = True
            part.restart()
            continue
        except Failed as error:
            reason, pause = str(error), error.pause
        except (OSError, http.client.HTTPException) as error:
            reason, pause = _words(error), 0.0
        if part.size > most:
            most, failures = part.size, 0
        failures += 1
        if failures >= TRIES:
            kept = f"; {part.size:,} bytes are kept, the same command continues" if part.size else ""
            raise NotFetched(f"{part.url}: {reason} ({failures} times in a row){kept}")
        time.sleep(min(max(pause, PAUSE * 2 ** (failures - 1)), LONGEST_PAUSE))


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return f"no connection, or it was dropped: {reason}"


def _one_request(part: Part, size: int | None, progress: Progress | None, timeout: float) -> bool:
    """Asks for what is missing and adds it to the part; False: the server has no such bytes.

    Raises:
        Failed: if another try may help.
        UserError: if none will.
    """
    if part.size and not (part.validator or part.checked):
        part.restart(total=part.total)  # nobody could tell whether the rest is of the same file
    start = part.size
    headers = {"User-Agent": "gtc-bench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.validator:
            headers["If-Range"] = part.validator
    try:
        # Spaces and letters beyond ASCII have no place in a request; what is quoted already stays.
        address = urllib.parse.quote(part.url, safe=string.punctuation)
        answer = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(part, error)
    except (ValueError, http.client.InvalidURL) as error:
        raise NotFetched(f"{part.url}: no address that can be asked ({error})") from None
    with answer:
        validator = _validator(answer.headers)
        if answer.status == 206:
            first, total = _range(answer.headers)
            changed = part.validator and validator and validator != part.validator
            if first != start or changed or (part.total is not None and total not in (None, part.total)):
                part.restart()
                raise Failed("the server sends another part of the file than it was asked for")
        else:  # the whole file: the server ignores ranges, or the file is another one now
            total = _number(answer.headers.get("Content-Length"))
        total = size if total is None else total
        if size is not None and total != size:
            raise NotFetched(
                f"{part.url}: the server offers {total:,} bytes, expected {size:,}; nothing was fetched of it"
            )
        if answer.status != 206 or not start:
            part.restart(validator, total)
        with _opened(part.path) as file:
            done = part.size
            while block := answer.read1(BLOCK):  # what has come, so that a drop or a kill loses nothing of it
                _append(file, block, part.path)
                done += len(block)
                if progress:
                    progress(done, total)
    if total is not None and done < total:
        raise Failed(f"the connection broke off at {done:,} of {total:,} bytes")
    return True


def _opened(path: Path) -> IO[bytes]:
    try:
        return open(path, "ab")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _append(file: IO[bytes], block: bytes, path: Path) -> None:
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _refused(part: Part, error: urllib.error.HTTPError) -> bool:
    """What an answer that is no file means; False where the range is what was wrong."""
    if error.code == 416:
        _, total = _range(error.headers)
        return part.size > 0 and total == part.size and part.total in (None, total)  # True: all was there
    if error.code == 429 or error.code >= 500:
        pause = _number(error.headers.get("Retry-After"))
        raise Failed(f"the server answers {error.code} ({error.reason})", float(pause or 0))
    known = {403: "it may not be fetched without permission", 404: "it is not there (any more)", 410: "it is gone"}
    why = f": {known[error.code]}" if error.code in known else ""
    raise NotFetched(
        f"{part.url}: the server answers {error.code} ({error.reason}){why}; get the file in another way and put it in place"
    )


def _validator(headers: Any) -> str:
    """What names this state of the file in If-Range: a strong ETag, or the date of its last change."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _range(headers: Any) -> tuple[int | None, int | None]:
    """First byte and total of a Content-Range."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if not found:
        return None, None
    first, total = found.groups()
    return _number(first), _number(total)


def _number(word: str | None) -> int | None:
    return int(word) if word and re.fullmatch(r"\d{1,18}", word) else None
