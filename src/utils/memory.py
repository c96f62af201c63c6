"""How the process handles memory."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from utils.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)


def keep_freed_memory() -> None:
    """Lets the C library keep freed memory for the next allocation, where it is glibc; elsewhere nothing happens.

    Each training step allocates and frees tables of some megabytes. By default glibc gives such memory back to the system at
    once, and getting it again, page by page, can cost more than computing with it.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest that glibc takes
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def check_fits(name: str, needed: Mapping[str, int], device: torch.device) -> None:
    """Checks what a model says it needs against the memory of the device, before anything is built.

    Args:
        name: of the model, for the message.
        needed: what it holds, in words to bytes.
        device: where.

    Raises:
        UserError: if it is more than there is in all.
    """
    there = memory_of(device)
    if there and sum(needed.values()) > there:
        parts = ", ".join(f"{what} {_gib(size)}" for what, size in needed.items())
        raise UserError(f"{name} needs more memory than the {_gib(there)} of {device}: {parts}")


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device in all; 0 where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0
    # In a container the limit is the control group's.
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    words = [path.read_text().strip() for path in limits if path.is_file()]
    return min([total, *(int(word) for word in words if word.isdigit())])


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
