"""A run that answers over HTTP: the same lists as `recommend`, and one line for what is wrong."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from cli_tools import places, run_here, trained, write_dataset, write_mappings

from runner.service import Service, UnknownId, listening, make_app, one_line, web_modules
from runner.stored_run import StoredRun
from utils.errors import UserError


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    folder = tmp_path_factory.mktemp("service")
    write_mappings(write_dataset(folder / "data/toy"))
    done = trained("-m", "LightGCN", "-d", "toy", "--epochs", 2, "--popularity", 0.1, "--quiet", *places(folder))
    return StoredRun.open(done.folders[0])


@pytest.fixture
def service(stored: StoredRun):
    service = Service(stored)
    yield service
    service.close()


def test_answers_are_those_of_the_run(stored, service):
    scores = stored.scores([5])[0]
    scores[stored.dataset.inter_matrix("csr")[5].indices] = -np.inf
    found = service.recommend("U5", 7)
    assert [one["item"] for one in found] == [f"B{item}" for item in np.argsort(-scores, kind="stable")[:7]]
    service.close()  # `forward` is then computed again
    items = stored.model()[1].detach().numpy()
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    near = Service(stored).similar("B3", 4)
    cosines = unit @ unit[3]
    expected = [item for item in np.argsort(-cosines) if item != 3][:4]
    assert [one["item"] for one in near] == [f"B{item}" for item in expected]
    assert [one["cosine"] for one in near] == pytest.approx(cosines[expected], abs=1e-5)


def test_unknown_ids_and_taken_ports_are_one_line(service):
    with pytest.raises(UnknownId, match=r"^there is no user '5'; ids look like U0, U1, U2$"):
        service.recommend("5", 3)
    with (
        listening("127.0.0.1", 0) as taken,
        pytest.raises(UserError, match="in use; choose another --host or --port"),
    ):
        listening("127.0.0.1", taken.getsockname()[1])
    assert one_line([{"loc": ("query", "k"), "msg": "Input should be 1 or more"}]) == "k: Input should be 1 or more"


def test_without_the_packages_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = run_here("serve", tmp_path)
    assert (done.code, done.err) == (2, "error: serve needs fastapi and uvicorn: pip install fastapi uvicorn\n")


def test_the_server_answers_over_http(service):
    pytest.importorskip("fastapi", reason="fastapi is not installed: nothing is asked over HTTP")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed: nothing is asked over HTTP")
    place = listening("127.0.0.1", 0)
    _, uvicorn = web_modules()
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()

    def get(path: str):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{place.getsockname()[1]}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        assert get("/recommend?user=U5&k=3") == (200, {"user": "U5", "items": service.recommend("U5", 3)})
        assert get("/similar?item=B3&k=2") == (200, {"item": "B3", "items": service.similar("B3", 2)})
        assert get("/health")[1] == {"status": "ok", "model": "LightGCN", "dataset": "toy", "users": 40, "items": 55}
        assert "/recommend" in get("/openapi.json")[1]["paths"]
        for path, code in (("/recommend?user=no", 404), ("/recommend", 422), ("/similar?item=B3&k=0", 422),
                           ("/recommend?user=U5&k=x", 422), ("/nothing", 404)):  # fmt: skip
            status, answer = get(path)
            assert status == code
            assert isinstance(answer["detail"], str)
            assert "\n" not in answer["detail"]
    finally:
        server.should_exit = True
        thread.join()
        place.close()
