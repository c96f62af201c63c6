"""Downloads that resume where they stopped, by requests (extra `download`)."""

from __future__ import annotations

import importlib.util
import os
import re
import time
import zipfile
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepare.file_tools import read_json
from utils.errors import UserError
from utils.files import atomic_file, make_folder, take_lock, write_json

BLOCK = 2**20
TRIES = 5  # in a row without a byte more
PAUSE = 1.0  # seconds before the second try, doubled each time
LONGEST_PAUSE = 60.0
AGAIN = (429, 500, 502, 503, 504)  # answers that may be others later
REASONS = {403: "it may not be fetched without permission", 404: "it is not there (any more)", 410: "it is gone"}
Progress = Callable[[int, "int | None"], None]  # bytes so far, bytes in all where known


class NotFetched(UserError):
    """A problem of the address or its server, not of this machine: other files may still come."""


class Interrupted(Exception):
    """A try that may go better the next time."""


@dataclass
class Part:
    """What is there of a file: `NAME.part`, and beside it where it comes from.

    Attributes:
        path: of the part.
        url: the address.
        validator: what the server called this state of the file (strong ETag or Last-Modified); empty: nothing.
        total: its bytes in all, where known.
    """

    path: Path
    url: str
    validator: str = ""
    total: int | None = None

    @property
    def record(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def load(self) -> None:
        """Takes what an earlier process left."""
        content = read_json(self.record) or {}
        if content.get("url") == self.url and {"validator", "total"} <= content.keys():
            self.validator, self.total = str(content["validator"]), content["total"]
        else:
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


def download(url: str, path: Path, progress: Progress | None = None, timeout: float = 30) -> None:
    """Fetches a file unless it is there; it appears under its name only when it is complete.

    What is there of it already is kept in `NAME.part` and continued, if the server says that the file is still the same.
    Dropped connections and errors of the server are tried again, five times in a row.

    Args:
        url: http or https.
        path: where to; its folder is made.
        progress: called with the bytes so far and in all (None: unknown).
        timeout: in seconds, of the connection and of each wait for more bytes.

    Raises:
        UserError: if the server refuses, or the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise NotFetched(f"{url}: expected an address that begins with http:// or https://")
    if path.exists():
        return
    make_folder(path.parent)
    lock_path = path.with_name(f".{path.name}.lock")
    lock = take_lock(lock_path)
    if lock is None:
        raise UserError(f"{path}: another process is fetching it; wait for it or stop it first")
    part = Part(path.with_name(f"{path.name}.part"), url)
    try:
        part.load()
        with _session() as session:
            _fetch_all(session, part, progress, timeout)
        with open(part.path, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part.path, path)
        part.remove()
    finally:
        lock_path.unlink(missing_ok=True)
        lock.close()


def download_all(
    files: Mapping[str, tuple[str, Path]], at_once: int, progress: Progress | None = None
) -> dict[str, str]:
    """Fetches many files, several at a time; what is there is kept, and what a killed call has begun is continued.

    Args:
        files: address and place of each, by name.
        at_once: how many are fetched at a time.
        progress: called with the number of files done and all of them.

    Returns:
        why, for each that could not be fetched, in the order of `files`.

    Raises:
        UserError: if a file cannot be written.
    """
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(max(1, min(at_once, len(files)))) as executor:
        try:
            waiting = {executor.submit(download, url, path): name for name, (url, path) in files.items()}
            for done, future in enumerate(as_completed(waiting), 1):
                try:
                    future.result()
                except NotFetched as error:
                    failed[waiting[future]] = str(error)
                if progress:
                    progress(done, len(files))
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    return {name: failed[name] for name in files if name in failed}


def unpack(archive: Path, names: Collection[str]) -> list[str]:
    """Writes the files of these names that a .zip file holds, in whatever folder, beside it; returns their names.

    Raises:
        UserError: if it is no .zip file, or holds none of them.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            found = {Path(entry.filename).name: entry for entry in content.infolist() if not entry.is_dir()}
            for name in sorted(found.keys() & set(names)):
                with content.open(found[name]) as source, atomic_file(archive.parent / name) as target:
                    while block := source.read(BLOCK):
                        target.write(block)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); delete it and download it again") from None
    if not found.keys() & set(names):
        raise UserError(f"{archive}: it holds none of {', '.join(names)}")
    return sorted(found.keys() & set(names))


def _session() -> Any:
    """A session that tries again where the server cannot be reached or says that it is busy."""
    if importlib.util.find_spec("requests") is None:
        raise UserError("downloads need requests: pip install requests")
    import requests
    from urllib3.util import Retry

    retry = Retry(
        TRIES - 1, status_forcelist=AGAIN, backoff_factor=PAUSE, backoff_max=LONGEST_PAUSE, raise_on_status=False
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
    session.headers.update({"User-Agent": "gtc-bench", "Accept-Encoding": "identity"})
    return session


def _fetch_all(session: Any, part: Part, progress: Progress | None, timeout: float) -> None:
    """Fetches until all bytes are there; a broken connection is continued."""
    failures, most = 0, part.size
    while part.size != part.total or part.total is None:
        try:
            _request(session, part, progress, timeout)
            return
        except Interrupted as error:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures >= TRIES:
                kept = f"; {part.size:,} bytes are kept, the same command continues" if part.size else ""
                raise NotFetched(f"{part.url}: {error} ({failures} times in a row){kept}") from None
            time.sleep(min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))


def _request(session: Any, part: Part, progress: Progress | None, timeout: float) -> None:
    """Asks for the bytes that are missing and adds them to the part.

    Raises:
        Interrupted: if another try may help.
        UserError: if none will.
    """
    import requests
    import urllib3

    if part.size and not part.validator:
        part.restart(total=part.total)  # nothing could tell whether the rest is of the same file
    start = part.size
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and part.validator:
        headers["If-Range"] = part.validator
    try:
        answer = session.get(part.url, headers=headers, timeout=timeout, stream=True)
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        reason = getattr(error.args[0] if error.args else None, "reason", None) or error
        raise NotFetched(
            f"{part.url}: no connection ({str(reason).rpartition(': ')[2]}); {TRIES} times in a row"
        ) from None
    except (requests.exceptions.RequestException, ValueError) as error:
        raise NotFetched(f"{part.url}: not a valid address ({error})") from None
    with answer:
        if answer.status_code == 416:
            _, total = _range(answer.headers)
            if start and total == start and part.total in (None, total):
                return  # all was there
            if not start:
                raise NotFetched(f"{part.url}: the server answers 416 (no such range) to a request for the whole file")
            part.restart()  # the server has less than the part: that was of another file
            raise Interrupted("the server has fewer bytes than were fetched before")
        if answer.status_code not in (200, 206):
            why = REASONS.get(answer.status_code, "")
            times = f" ({TRIES} times in a row)" if answer.status_code in AGAIN else ""
            raise NotFetched(
                f"{part.url}: the server answers {answer.status_code} ({answer.reason}){times}{': ' * bool(why)}{why}; get "
                "the file in another way and put it in place"
            )
        etag = answer.headers.get("ETag", "")
        # A strong ETag, or the date of the last change, names this state of the file in If-Range.
        validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
        total = _number(answer.headers.get("Content-Length"))
        if answer.status_code == 206:
            first, total = _range(answer.headers)
            changed = part.validator and validator and validator != part.validator
            if first != start or changed or (part.total is not None and total not in (None, part.total)):
                part.restart()
                raise Interrupted("the server sends another part of the file than it was asked for")
        if answer.status_code != 206 or not start:
            part.restart(validator, total)
        done = part.size
        try:
            with open(part.path, "ab", buffering=0) as file:
                while block := answer.raw.read1(BLOCK):  # what has come, so that a kill loses nothing of it
                    file.write(block)
                    done += len(block)
                    if progress:
                        progress(done, total)
        except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
            if total is None:
                raise Interrupted(f"the connection was dropped ({type(error).__name__})") from None
        except OSError as error:
            raise UserError(f"{part.path}: cannot be written ({error.strerror})") from None
    if total is not None and done < total:
        raise Interrupted(f"the connection broke off at {done:,} of {total:,} bytes")


def _range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """First byte and total of a Content-Range."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip())
    return (_number(found[1]), _number(found[2])) if found else (None, None)


def _number(word: str | None) -> int | None:
    return int(word) if word and re.fullmatch(r"\d{1,18}", word) else None
