"""When a checkpoint is due, where it is kept, and what differs from the last one.

All random numbers of training depend on (seed, run, epoch, step, clip), so that a checkpoint holds
no state of a random generator, and training resumes in the middle of an epoch with any number of
processes.
"""

import json
import re
import signal
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from salema.files import atomic
from salema.train import ranks

GRACE = 8  # seconds that a step may take after a signal; then the last checkpoint must do
KEPT = 2  # checkpoints of a run; where the best epoch is kept, each holds its weights too


class Checkpoints:
    """The last checkpoints of a run in `folder`, one every `minutes`."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.minutes = folder, minutes
        self.received = 0  # the number of a signal
        self._last = time.monotonic()

    def asked(self) -> tuple[int, int]:
        """The signal that this process has received, or 0, and whether a checkpoint is due."""
        return self.received, int(time.monotonic() - self._last > 60 * self.minutes)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Note SIGTERM and SIGINT, for the end of a step; a second one, or `GRACE`, ends at once.

        Outside the main thread nobody listens to signals.
        """

        def note(number: int, _: Any) -> None:
            # torchrun hands on what a terminal or SLURM has already sent to every process.
            again = ranks.count() == 1 or number not in (signal.SIGTERM, signal.SIGINT)
            if self.received and again:
                raise KeyboardInterrupt(self.received)
            self.received = number
            if hasattr(signal, "alarm"):
                signal.alarm(GRACE)

        names, before = ("SIGTERM", "SIGINT", "SIGALRM"), {}
        try:
            with suppress(ValueError):
                for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                    before[number] = signal.signal(number, note)
            yield
        finally:
            if hasattr(signal, "alarm"):
                signal.alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _there(self) -> list[Path]:
        """The checkpoints, newest first."""
        found = self.folder.glob("step-*.pt")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def save(self, state: dict) -> None:
        """Write a checkpoint, in rank 0, and remove all but the newest."""
        if not ranks.rank():
            with atomic(self.folder / f"step-{state['steps']}.pt") as part:
                torch.save(state, part)
            for old in self._there()[KEPT:]:
                old.unlink(missing_ok=True)
        ranks.wait()  # torchrun ends all processes when one ends
        self._last = time.monotonic()

    def newest(self, epochs: int) -> dict | None:
        """The newest checkpoint that is whole and not of more than `epochs` epochs."""
        for path in self._there():
            try:
                with zipfile.ZipFile(path) as file:  # torch does not compare the checksums
                    if broken := file.testzip():
                        raise ValueError(broken)
                state = torch.load(path, weights_only=True, map_location="cpu")
            except Exception as error:  # whatever a damaged file makes torch fail with
                reason = " ".join(str(error).split())[:80]
                ranks.tell(f"{path} is damaged: the checkpoint before it counts ({reason})")
                continue
            if state["begun"] <= epochs:
                return state
        return None

    def describe(self, run: str, parts: dict) -> None:
        """Write what determines the run; if that is new, say what differs from its last one."""
        path, name = self.folder / "described.json", re.compile(re.escape(run) + "-[0-9a-f]{16}")
        known = self.folder.parent.glob("*/described.json")
        known = [p for p in known if name.fullmatch(p.parent.name)]
        if path in known or ranks.rank():
            return
        with atomic(path) as part:
            part.write_text(json.dumps(parts, indent=1), encoding="utf-8")
        with suppress(ValueError, OSError):  # the first one, or a damaged one
            before = json.loads(max(known, key=lambda p: p.stat().st_mtime_ns).read_text("utf-8"))
            changed = ", ".join(_changes(before, json.loads(json.dumps(parts))))
            ranks.tell(f"{run}: training starts from scratch, because of another {changed}")


def _changes(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs: "settings.batch (2, not 1)", or the name of what has another hash."""
    if old == new:
        return []
    if not (isinstance(old, dict) and isinstance(new, dict)):
        hashed = isinstance(old, str) and len(old) == 64
        return [name if hashed else f"{name} ({new}, not {old})"]
    inner = []
    for key in dict.fromkeys([*old, *new]):
        inner += _changes(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    return inner
