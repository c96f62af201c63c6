"""How the process handles memory."""

from __future__ import annotations

import ctypes
import sys

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
