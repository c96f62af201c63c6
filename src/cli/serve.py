"""Answers over HTTP from a finished run: /recommend?user=U&k=20, /similar?item=I&k=20, /health; /docs describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.parser import parse_options
from utils.config.schema import setting

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class ServeOptions:
    """What is served, and where."""

    run_folder: str = setting("folder of a finished run")
    host: str = setting("address to listen on; others than 127.0.0.1 let other machines ask", default="127.0.0.1")
    port: int = setting("port; 0: any that is free", low=0, high=65535, default=8000)
    data_path: str | None = setting("folder of data sets, if it is elsewhere now", default=None)
    device: str | None = setting("auto, cpu, cuda or cuda:N; without: that of the run", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("serve", ServeOptions, words, ["run_folder"], __doc__ or "")
    if options is None:
        return 0

    import torch

    from runner.service import Service, listening, serve, web_modules
    from runner.stored_run import StoredRun

    web_modules()
    with listening(options.host, options.port) as place:
        stored = StoredRun.open(Path(options.run_folder).expanduser(), options.data_path, options.device)
        torch.set_num_threads(1)  # an answer is too small to share
        service = Service(stored)
        shown = f"[{options.host}]" if ":" in options.host else options.host
        print(
            f"{stored.config.model} on {stored.config.dataset}: http://{shown}:{place.getsockname()[1]}/docs",
            flush=True,
        )
        if options.host not in LOOPBACK:
            print(f"note: whoever reaches {options.host} may ask; there is no password", flush=True)
        serve(service, place)
    return 0
