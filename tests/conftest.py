"""Each worker of pytest-xdist has one thread: more would take turns on the same cores."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
