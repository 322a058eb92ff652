"""One thread a worker: the tests run in parallel, and threads that wait spin."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
