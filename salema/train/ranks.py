"""Several processes of `torchrun` that train one network; a process alone is rank 0 of 1.

Each takes its share of the clips of every group, so that all have the same windows.
"""

import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NoReturn

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from salema.files import SalemaError

TIMEOUT = timedelta(minutes=10)  # for one process to wait for another


def count() -> int:
    """The number of processes."""
    return distributed.get_world_size() if _joined() else 1


def rank() -> int:
    """The number of this process; 0 is the one that writes."""
    return distributed.get_rank() if _joined() else 0


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun has started: by NCCL on GPUs, by Gloo on CPUs.

    A process that ends, or keeps the others waiting for `TIMEOUT`, ends them with one line.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or "MASTER_ADDR" not in os.environ or _joined():
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpu else "gloo", timeout=TIMEOUT)
    own = f"process {rank()} of {count()}"
    try:
        yield
        wait()  # until rank 0 has written
    except RuntimeError as error:
        words = ("gloo", "NCCL", "Connection", "timed out", "recvVector")
        if not any(word in str(error) for word in words):
            raise
        what = f"{own} lost another one, which ended or took over {TIMEOUT.total_seconds():g} s"
        raise SalemaError(f"{what} (see its own line; run again to resume)") from error
    finally:
        distributed.destroy_process_group()


def tell(line: str) -> None:
    """Report a line on stderr, once for all processes."""
    if rank() == 0:
        tqdm.write(line, file=sys.stderr)


def stop(message: str) -> NoReturn:
    """End every process, where all of them know the error; rank 0 reports it."""
    if rank():
        sys.exit(2)
    raise SalemaError(message)


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        distributed.barrier()


def indices(size: int) -> list[int]:
    """What this process takes of a group of `size` clips; all take equally many.

    An index of `size` or more is a repeat of the last clip, with weight 0.
    """
    each = math.ceil(size / count())
    return list(range(rank() * each, (rank() + 1) * each))


def whole(rows: Tensor) -> Tensor:
    """(B, ...) of every process -> those of the group, in order, with the repeats at its end."""
    if count() == 1:
        return rows
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(count())]
    distributed.all_gather(parts, rows)
    return torch.cat(parts)


def own(rows: Tensor, each: int) -> Tensor:
    """The `each` rows of this process out of those of a group, from any number of processes."""
    if len(rows) == each:
        return rows  # not a copy, which may have other strides
    first = rank() * each
    return rows[torch.arange(first, first + each, device=rows.device).clamp(max=len(rows) - 1)]


def gathered(values: Sequence[str]) -> list[str]:
    """The texts of all processes."""
    if count() == 1:
        return list(values)
    parts = [None] * count()
    distributed.all_gather_object(parts, list(values))
    return [value for part in parts for value in part]


def wrapped(network: nn.Module, unused: bool) -> nn.Module:
    """The network, whose gradients become the mean over the processes after `backward`.

    It is for the parameters that train now. `unused`: some may have no part in a window's maps.
    """
    if count() == 1:
        return network
    with warnings.catch_warnings():  # newer versions of torch have another name for it
        warnings.simplefilter("ignore", FutureWarning)
        options = {"find_unused_parameters": unused, "broadcast_buffers": False}
        return DistributedDataParallel(network, **options)
