"""The share of the work that a process takes, under torchrun, under SLURM or by hand."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from salema.files import SalemaError, one_line

KNOWN = [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")]  # torchrun's come first
PATIENCE = timedelta(hours=2)  # of the first rank that is done for the last one

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """Processes that share the work of one command, and which of them this one is."""

    rank: int = 0
    world: int = 1
    shard: int = 0  # of the work, which other commands share; from 0
    shards: int = 1

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this command: every `shards`-th."""
        return items[self.shard :: self.shards]

    def take(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this process, in order: every `world`-th of `part`."""
        return self.part(items)[self.rank :: self.world]

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Inside, `gather` works. A rank that is missing or dies is an error of one line.

        The address of rank 0 is in MASTER_ADDR and MASTER_PORT, as torchrun sets them; without
        them, all ranks must be on this machine.
        """
        if self.world == 1:
            yield
            return
        from torch import distributed

        port = 20_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10_000
        for key, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
            if key not in os.environ and os.environ.get("SLURM_NNODES", "1") != "1":
                raise SalemaError(f"{key} is not set (export it, see docs/cluster.md)")
            os.environ.setdefault(key, value)
        options = {"rank": self.rank, "world_size": self.world, "timeout": PATIENCE}
        with one_line(f"rank {self.rank} of {self.world} met no others (start them all)"):
            distributed.init_process_group("gloo", **options)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def gather(self, items: list[Any]) -> list[Any]:
        """On every rank, the results for all of `part`, in its order, from those of `take`."""
        if self.world == 1:
            return items
        from torch import distributed

        found: list[list] = [[]] * self.world
        with one_line("another rank died; its own line says why (run the same command again)"):
            distributed.all_gather_object(found, items)
        together = [None] * sum(map(len, found))
        for rank, part in enumerate(found):
            together[rank :: self.world] = part
        return together


def ranks(shard: str | None = None) -> Ranks:
    """What torchrun (RANK, WORLD_SIZE) or else SLURM (SLURM_PROCID, SLURM_NTASKS) has set.

    `shard` is "i/n", with i from 1 to n.
    """
    part = re.fullmatch(r"(\d{1,7})/(\d{1,7})", shard or "1/1")
    if not part or not 1 <= int(part[1]) <= int(part[2]):
        raise SalemaError(f"bad --shard {shard} (write 1/4, 2/4, 3/4 or 4/4)")
    for keys in KNOWN:
        if all(key in os.environ for key in keys):
            rank, world = (os.environ[key] for key in keys)
            if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
                raise SalemaError(f"bad rank {keys[0]}={rank} {keys[1]}={world} (unset both)")
            return Ranks(int(rank), int(world), int(part[1]) - 1, int(part[2]))
    return Ranks(shard=int(part[1]) - 1, shards=int(part[2]))
