"""Many files fetched at once from a server of this machine that fails in several ways."""

from __future__ import annotations

import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import problems_of
from serving import serving

from prepare import download as module
from prepare.download import download_all, unpack
from prepare.synthetic_raw.raw_lines import png

TOGETHER = 4
PATIENCE = 60.0  # seconds after which a test that waits has failed


def content_of(path: str) -> bytes:
    """Each address has an image of its own."""
    number = sum(path.encode())
    return png(np.full((4, 4, 3), number % 256, dtype=np.uint8)) + path.encode()


class Server(ThreadingHTTPServer):
    """What it does goes by the address: /404/..., /500/... always fail, /once/... and /drop/... the first time.

    Attributes:
        asked: how often each address was asked for; at_work, most: requests in work, now and at most.
        meeting: requests for /meet/... wait here for each other; gate: those for /wait/... wait for this.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.at_work = self.most = 0
        self.counting = threading.Lock()
        self.meeting = threading.Barrier(TOGETHER)
        self.gate = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away in these tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        state = self.server
        with state.counting:
            state.asked[self.path] += 1
            first = state.asked[self.path] == 1
            state.at_work += 1
            state.most = max(state.most, state.at_work)
        try:
            self.answer(self.path.split("/")[1], first)
        finally:
            with state.counting:
                state.at_work -= 1

    def answer(self, how: str, first: bool) -> None:
        if how == "meet":
            self.server.meeting.wait(PATIENCE)
        elif how == "wait":
            self.server.gate.wait(PATIENCE)
        if how in ("404", "500") or (how == "once" and first):
            self.send_error(503 if how == "once" else int(how))
            return
        content = content_of(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if how == "drop" and first else content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with serving(server := Server()):
        yield server
        server.gate.set()
        server.meeting.abort()


def files_at(server: Server, folder: Path, *paths: str) -> dict[str, tuple[str, Path]]:
    folder.mkdir(exist_ok=True)
    return {path: (server.url + path, folder / f"{number}.png") for number, path in enumerate(paths)}


def found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


MIXED = [f"/{how}/{number}" for number in range(5) for how in ("ok", "404", "once", "500", "drop")]


def test_failures_are_reported_file_by_file_whatever_the_order(server: Server, tmp_path: Path) -> None:
    results = []
    for at_once in (1, 8):
        server.asked.clear()
        seen: list[tuple[int, int | None]] = []
        files = files_at(server, tmp_path / str(at_once), *MIXED)
        failed = download_all(files, at_once, lambda done, whole, seen=seen: seen.append((done, whole)))
        assert seen == [(done, 25) for done in range(1, 26)]
        assert list(failed) == [path for path in MIXED if path[1:4] in ("404", "500")]
        for path, reason in failed.items():
            known = {"404": "404 (Not Found): it is not there", "500": "500 (Internal Server Error) (5 times in a row)"}
            assert reason.startswith(f"{server.url}{path}: the server answers {known[path[1:4]]}")
        results.append((failed, found(tmp_path / str(at_once))))
        assert {path: server.asked[path] for path in MIXED[:5]} == dict(zip(MIXED, (1, 1, 2, 5, 2), strict=False))
    assert all(result == results[0] for result in results)
    assert results[0][1] == {
        f"{number}.png": content_of(path) for number, path in enumerate(MIXED) if path[1:4] not in ("404", "500")
    }


def test_so_many_are_fetched_at_once_and_no_more(server: Server, tmp_path: Path) -> None:
    # None of them gets an answer before as many have asked as may at a time.
    files = files_at(server, tmp_path, *(f"/meet/{number}" for number in range(3 * TOGETHER)))
    assert download_all(files, TOGETHER) == {}
    assert server.most == TOGETHER
    assert len(found(tmp_path)) == 3 * TOGETHER


def test_what_is_there_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    download_all(files_at(server, tmp_path, "/ok/1", "/404/1"), 8)
    server.asked.clear()
    assert list(download_all(files_at(server, tmp_path, "/ok/1", "/404/1", "/ok/2"), 8)) == ["/404/1"]
    assert server.asked == {"/404/1": 1, "/ok/2": 1}


def test_a_disk_that_cannot_be_written_ends_it(server: Server, tmp_path: Path) -> None:
    files = files_at(server, tmp_path, *(f"/ok/{number}" for number in range(30)))
    files["/ok/3"] = (server.url + "/ok/3", tmp_path / "0.png" / "under a file.png")
    download_all(dict([next(iter(files.items()))]), 1)
    (problem,) = problems_of(lambda: download_all(files, 2))
    assert "0.png" in problem


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a.png", "http://[127.0.0.1/a.png", "http://127.0.0.1:x/a.png"])
def test_addresses_that_are_none_fail_alone(server: Server, tmp_path: Path, address: str) -> None:
    files = files_at(server, tmp_path, "/ok/1") | {"bad": (address, tmp_path / "bad.png")}
    failed = download_all(files, 2)
    assert list(failed) == ["bad"]
    assert failed["bad"].startswith(f"{address}: ")
    assert list(found(tmp_path)) == ["0.png"]


def test_archives_are_unpacked_by_file_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as archive:
        archive.writestr("ml/../u.data", "1")
        archive.writestr("ml/README", "2")
    assert unpack(tmp_path / "ml.zip", ["u.data", "u.item"]) == ["u.data"]
    assert (tmp_path / "u.data").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ml.zip", "u.data"]
    assert "it holds none of x" in problems_of(lambda: unpack(tmp_path / "ml.zip", ["x"]))[0]
    (tmp_path / "ml.zip").write_bytes(b"no archive")
    assert "cannot be unpacked" in problems_of(lambda: unpack(tmp_path / "ml.zip", ["x"]))[0]


def test_spaces_and_other_letters_are_quoted_and_quotes_left(server: Server, tmp_path: Path) -> None:
    assert download_all(files_at(server, tmp_path, "/ok/a é%2B+.png?x=1&y"), 2) == {}
    assert list(server.asked) == ["/ok/a%20%C3%A9%2B+.png?x=1&y"]
