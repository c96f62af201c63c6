"""Requests a second that `serve` answers, over many connections, while some clients die; what is lost is counted.

python benchmarks/serve.py runs/baby/LightGCN/<run> [--connections 200] [--seconds 10] [--data_path DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MAIN = Path(__file__).resolve().parent.parent / "src" / "main.py"


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: int) -> int:
    """One request over an open connection; returns the status."""
    writer.write(f"GET /recommend?user={user}&k=20 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head.lower())
    await reader.readexactly(int(length))
    return int(head.split()[1])


async def client(port: int, users: list[int], end: float, times: list[float], lost: list[str]) -> None:
    """Asks one request after the other until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(10**9):
        start = time.perf_counter()
        if start > end:
            break
        try:
            status = await ask(reader, writer, users[number % len(users)])
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            lost.append(type(error).__name__)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        if status != 200:
            lost.append(str(status))
        times.append(time.perf_counter() - start)
    writer.close()


async def dying(port: int, end: float) -> int:
    """Clients that ask and go away before the answer; returns how many there were."""
    for number in range(10**9):
        if time.perf_counter() > end:
            return number
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /recommend?user=0&k=20 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.transport.abort()
        await asyncio.sleep(0.01)
    return 0


async def load(port: int, connections: int, seconds: float, users: list[list[int]]) -> str:
    """Runs all clients; returns the figures in a line."""
    times: list[float] = []
    lost: list[str] = []
    start = time.perf_counter()
    end = start + seconds
    asking = [client(port, users[number], end, times, lost) for number in range(connections)]
    died, *_ = await asyncio.gather(dying(port, end), *asking)
    rate = len(times) / (time.perf_counter() - start)
    middle, late = np.quantile(times, [0.5, 0.99]) * 1000
    return f"{rate:.0f} requests/s, {len(lost)} of {len(times)} lost, median {middle:.0f} ms, 99% {late:.0f} ms, {died} died"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run")
    words.add_argument("--connections", type=int, default=200)
    words.add_argument("--seconds", type=float, default=10)
    words.add_argument("--data_path")
    given = words.parse_args()
    command = [sys.executable, str(MAIN), "serve", given.run, "--port", "0"]
    command += ["--data_path", given.data_path] if given.data_path else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        line = server.stdout.readline()
        found = re.search(r":(\d+)/docs", line)
        if not found:
            sys.exit(f"the server did not start: {line}")
        users = np.random.default_rng(0).integers(0, 1000, (given.connections, 100)).tolist()
        print(line.strip())
        print(asyncio.run(load(int(found[1]), given.connections, given.seconds, users)))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
