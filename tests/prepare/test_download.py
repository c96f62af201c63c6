"""Downloads from a server of this machine that drops connections, refuses, lies about lengths and changes its file."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import problems_of
from serving import serving

from prepare import download as module
from prepare.download import download
from utils.files import take_lock

CONTENT = bytes(range(256)) * 40  # 10,240 bytes
OTHER = CONTENT[::-1] + b"more"


class Server(http.server.ThreadingHTTPServer):
    """What it does is set by the test.

    Attributes:
        content: the file; tag: its ETag, or none.
        ranges: whether Range is understood.
        send: bytes that an answer has before the connection drops, one after the other; None or no more: all.
        codes: answers that are errors, one after the other.
        length: what Content-Length says in place of the truth; "" leaves it out.
        asked: the Range of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag, self.ranges = CONTENT, '"one"', True
        self.send: list[int | None] = []
        self.codes: list[int] = []
        self.length: str | None = None
        self.asked: list[str | None] = []
        self.stalls = False  # the first answer waits after what it sends
        self.closing = threading.Event()
        self.changed_after: tuple[int, bytes] | None = None  # requests, then this content with another tag

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in these tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        state = self.server
        if state.changed_after and len(state.asked) >= state.changed_after[0]:
            state.content, state.tag = state.changed_after[1], '"two"' if state.tag else ""
        asked = self.headers.get("Range")
        state.asked.append(asked)
        if state.codes and (code := state.codes.pop(0)):
            self.send_error(code)
            return
        content, start = state.content, 0
        same = self.headers.get("If-Range") in (None, state.tag)
        if asked and state.ranges and same:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if state.tag:
            self.send_header("ETag", state.tag)
        length = state.length if state.length is not None else str(len(content) - start)
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()
        size = state.send.pop(0) if state.send else None
        self.wfile.write(content[start:] if size is None else content[start : start + size])
        if state.stalls and len(state.asked) == 1:
            self.wfile.flush()
            state.closing.wait(60)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with serving(server := Server()):
        yield server
        server.closing.set()


def test_a_complete_file_in_a_new_folder_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "file.bin"
    for _ in range(2):
        download(server.url, target, lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert only(target.parent) == ["file.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked == [None]


def test_without_a_tag_parts_are_not_joined(server: Server, tmp_path: Path) -> None:
    server.tag, server.send = "", [3000]
    download(server.url, tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == CONTENT
    assert server.asked == [None, None]


def test_wrong_and_missing_lengths(server: Server, tmp_path: Path) -> None:
    # Offered as longer than what comes: broken off, again and again.
    server.length, server.ranges = "20000", False
    (problem,) = problems_of(lambda: download(server.url, tmp_path / "a.bin"))
    assert "broke off at 10,240 of 20,000 bytes (5 times in a row)" in problem
    server.length = ""
    download(server.url, tmp_path / "c.bin")
    assert (tmp_path / "c.bin").read_bytes() == CONTENT


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_dropped_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.send = [3000, 10, 4000]
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000-", "bytes=3010-", "bytes=7010-"]


def test_another_process_continues(server: Server, tmp_path: Path) -> None:
    server.send = [6000] + [0] * 10
    (problem,) = problems_of(lambda: download(server.url, tmp_path / "file.bin"))
    assert "broke off at 6,000 of 10,240 bytes (5 times in a row); 6,000 bytes are kept" in problem
    assert only(tmp_path) == ["file.bin.part", "file.bin.part.json"]
    server.asked, server.send = [], []
    download(server.url, tmp_path / "file.bin")
    assert server.asked == ["bytes=6000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert only(tmp_path) == ["file.bin"]


def test_killed_before_the_file_was_put_in_place(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    for total in (len(CONTENT), None):  # None: the server is asked, and answers 416
        (tmp_path / "file.bin.part").write_bytes(CONTENT)
        record = {"url": server.url, "validator": '"one"', "total": total}
        (tmp_path / "file.bin.part.json").write_text(json.dumps(record))
        download(server.url, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()
    assert server.asked == ["bytes=10240-"]


def test_a_file_that_changes_between_the_parts_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    server.send, server.changed_after = [3000], (1, OTHER)
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == OTHER
    assert server.asked == [None, "bytes=3000-"]


def test_a_part_of_another_address_or_without_a_record_is_not_used(server: Server, tmp_path: Path) -> None:
    for record in ('{"url": "http://elsewhere/", "validator": "x", "total": null}', "no JSON", "[]"):
        (tmp_path / "file.bin.part").write_bytes(b"x" * 100)
        (tmp_path / "file.bin.part.json").write_text(record)
        download(server.url, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        (tmp_path / "file.bin").unlink()
    assert server.asked == [None] * 3


def test_a_server_that_ignores_ranges(server: Server, tmp_path: Path) -> None:
    server.ranges, server.send = False, [3000]
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("code", "words"), [(404, "404 (Not Found): it is not there"), (403, "403 (Forbidden)"), (400, "400 (Bad Request)")]
)
def test_refusals_are_final(server: Server, tmp_path: Path, code: int, words: str) -> None:
    server.codes = [code]
    (problem,) = problems_of(lambda: download(server.url, tmp_path / "file.bin"))
    assert words in problem
    assert len(server.asked) == 1
    assert not (tmp_path / "file.bin").exists()


def test_a_refused_range_begins_anew_and_a_second_time_is_an_error(server: Server, tmp_path: Path) -> None:
    def with_part() -> None:
        (tmp_path / "file.bin.part").write_bytes(b"x" * 20_000)
        record = {"url": server.url, "validator": '"one"', "total": 30_000}
        (tmp_path / "file.bin.part.json").write_text(json.dumps(record))

    with_part()
    download(server.url, tmp_path / "file.bin")
    assert server.asked == ["bytes=20000-", None]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    with_part()
    server.codes = [416, 416]
    assert "answers 416" in problems_of(lambda: download(server.url, tmp_path / "file.bin"))[0]


def test_errors_of_the_server_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.codes, server.send = [500, 503, 0, 502], [3000]
    download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.asked) == 5
    server.codes = [500] * 9
    (problem,) = problems_of(lambda: download(server.url, tmp_path / "other.bin"))
    assert problem.startswith(f"{server.url}: the server answers 500 (Internal Server Error) (5 times in a row); get")


def test_nobody_there_and_other_addresses(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    (problem,) = problems_of(lambda: download(server.url, tmp_path / "file.bin", timeout=2))
    assert "no connection (" in problem
    (problem,) = problems_of(lambda: download("file:///etc/hostname", tmp_path / "file.bin"))
    assert "expected an address that begins with http:// or https://" in problem


def test_two_processes_do_not_fetch_one_file(server: Server, tmp_path: Path) -> None:
    lock = take_lock(tmp_path / ".file.bin.lock")
    assert lock
    with lock:
        assert "another process" in problems_of(lambda: download(server.url, tmp_path / "file.bin"))[0]
    download(server.url, tmp_path / "file.bin")
    assert only(tmp_path) == ["file.bin"]
