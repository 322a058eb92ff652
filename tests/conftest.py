"""One thread a worker: the tests run in parallel, and threads that wait spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Under `make test`, a make that a test starts would print the folders that it enters.
for key in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(key, None)
