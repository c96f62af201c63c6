"""A finished run that answers over HTTP: recommendations of a user and items like an item, by original ids."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import normalize

from common.abstract_recommender import GeneralRecommender
from runner.stored_run import StoredRun
from utils.errors import UserError
from utils.evaluation.topk import ranked_topk


class UnknownId(UserError):
    """A user or an item that the run does not know."""


class Service:
    """Answers for one run; embeddings are computed once, so that an answer costs one product.

    Args:
        stored: its model belongs to the service from now on.
    """

    def __init__(self, stored: StoredRun) -> None:
        self.stored = stored
        users, self.items = stored.users.ids, stored.items.ids
        self.user_numbers, self.item_numbers = stored.users.numbers, stored.items.numbers
        self._seen = stored.dataset.inter_matrix("csr")
        self._held = contextlib.ExitStack()
        self._held.enter_context(stored.model.scoring())
        self._tables = self._embeddings()
        self._unit = normalize(self._tables[1].float(), dim=1) if self._tables else None
        self.recommend(users[0], 1)

    def close(self) -> None:
        """Gives the model back."""
        self._held.close()

    def facts(self) -> dict[str, Any]:
        """What is served."""
        config, data = self.stored.config, self.stored.dataset
        return {"model": config.model, "dataset": config.dataset, "users": data.n_users, "items": data.n_items}

    @torch.no_grad()
    def recommend(self, user: str, k: int) -> list[dict[str, Any]]:
        """The k best items of a user with their scores, best first; training items are left out.

        Raises:
            UnknownId: for a user that is not there.
        """
        number = _number(user, self.user_numbers, "user")
        ids = torch.tensor([number], device=self.stored.device)
        scores = self.stored.scorers.add(self._scores(ids), ids)
        seen = self._seen.indices[self._seen.indptr[number] : self._seen.indptr[number + 1]]
        scores[0, torch.from_numpy(seen).long()] = -torch.inf
        return self._best(scores, k, "score")

    @torch.no_grad()
    def similar(self, item: str, k: int) -> list[dict[str, Any]]:
        """The k items whose embeddings have the largest cosine with an item's, itself left out.

        Raises:
            UnknownId: for an item that is not there.
            UserError: for a model without embeddings.
        """
        number = _number(item, self.item_numbers, "item")
        if self._unit is None:
            raise UserError(f"{self.stored.config.model} has no embeddings of items to compare")
        cosines = self._unit[number : number + 1] @ self._unit.T
        cosines[0, number] = -torch.inf
        return self._best(cosines, k, "cosine")

    def _scores(self, ids: torch.Tensor) -> torch.Tensor:
        if self._tables and type(self.stored.model).full_sort_predict is GeneralRecommender.full_sort_predict:
            users, items = self._tables
            return users[ids] @ items.T  # not padded to a full block, so equal to evaluation but for the last bits
        return self.stored.model.full_sort_predict((ids,)).clone()

    @torch.no_grad()
    def _embeddings(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        try:
            found = self.stored.model()
        except NotImplementedError:
            return None
        return found if isinstance(found, tuple) and len(found) == 2 else None

    def _best(self, scores: torch.Tensor, k: int, name: str) -> list[dict[str, Any]]:
        values, columns = ranked_topk(scores.float(), min(k, len(self.items)))
        pairs = zip(columns[0].tolist(), values[0].tolist(), strict=True)
        return [{"item": self.items[column], name: value} for column, value in pairs if value > -torch.inf]


def _number(name: str, numbers: dict[str, int], kind: str) -> int:
    if name not in numbers:
        raise UnknownId(f"there is no {kind} '{name[:100]}'; ids look like {', '.join(list(numbers)[-1:-4:-1])}")
    return numbers[name]


def web_modules() -> tuple[Any, Any]:
    """FastAPI and uvicorn.

    Raises:
        UserError: if they are not there.
    """
    try:
        import fastapi
        import uvicorn
    except ImportError:
        raise UserError("serve needs fastapi and uvicorn: pip install fastapi uvicorn") from None
    return fastapi, uvicorn


def make_app(service: Service) -> Any:
    """The ASGI application; what is wrong with a request is one line, `{"detail": ...}`, with a status from 400 up."""
    fastapi, _ = web_modules()
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    app = fastapi.FastAPI(title="GTC-Bench", description="Answers of one finished run, by original ids.")
    how_many = fastapi.Query(20, ge=1, le=len(service.items), description="number of items")

    # Coroutines, not functions: an answer takes less than a thread would take to be found for it.
    @app.get("/recommend", summary="The best items of a user", response_model=None)
    async def recommend(user: str, k: int = how_many) -> Any:
        return JSONResponse({"user": user, "items": service.recommend(user, k)})

    @app.get("/similar", summary="The items most like an item", response_model=None)
    async def similar(item: str, k: int = how_many) -> Any:
        return JSONResponse({"item": item, "items": service.similar(item, k)})

    @app.get("/health", summary="What is served", response_model=None)
    async def health() -> Any:
        return JSONResponse({"status": "ok", **service.facts()})

    async def refused(request: Any, error: UserError) -> Any:
        return JSONResponse({"detail": error.problems[0]}, 404 if isinstance(error, UnknownId) else 400)

    async def invalid(request: Any, error: RequestValidationError) -> Any:
        return JSONResponse({"detail": one_line(error.errors())}, 422)

    app.add_exception_handler(UserError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    return app


def one_line(errors: Sequence[Any]) -> str:
    """What is wrong with the parameters of a request."""
    return "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in errors)


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0: any that is free.

    Raises:
        UserError: if the address cannot be used.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = str(error.strerror).partition(" (")[0]
        raise UserError(f"serve: {host}, port {port}: {why}; choose another --host or --port") from None


def serve(service: Service, place: socket.socket) -> None:
    """Answers until the process is told to stop."""
    _, uvicorn = web_modules()
    config = uvicorn.Config(make_app(service), log_level="warning", access_log=False, backlog=2048)
    uvicorn.Server(config).run(sockets=[place])
