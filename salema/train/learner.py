"""One training under way: network, optimizer and schedule; epochs and steps."""

import copy
import csv
import math
import sys
import zlib
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from salema.files import SalemaError, atomic
from salema.media.threads import ahead
from salema.model.device import pick_device, pick_precision
from salema.model.network import SaliencyModel, State
from salema.params import Finetune
from salema.train import ranks
from salema.train.checkpoints import Checkpoints
from salema.train.job import Job
from salema.train.losses import Adversary, frame_losses
from salema.train.optimizer import after_epoch, after_step, make_optimizer, make_schedule, thaw
from salema.train.windows import Window

Row = dict[str, float | None]  # of losses.csv
PROGRESS = ("epoch", "steps", "history", "position", "losses", "clips", "skipped")


class Learner:
    """Network, optimizer and schedule of a job: epochs, steps and the state of a checkpoint."""

    def __init__(
        self, network: SaliencyModel, job: Job, checkpoints: Checkpoints | None = None
    ) -> None:
        self.job, self.settings, self.checkpoints = job, job.settings, checkpoints
        self._check_validation()
        self.device = pick_device("auto")
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.wrapped: nn.Module = self.network  # with several processes, their gradients' mean
        self.mixed = pick_precision(self.settings.precision, self.device) == "bf16"
        self.optimizer = make_optimizer(self.network, self.settings)
        self.epoch, self.steps = 0, 0
        self.history: list[Row] = []
        self._start_epoch()
        self.average = copy.deepcopy(self.network) if self.settings.average else None
        self.best = copy.deepcopy(self.network) if self.settings.keep == "best" else None
        parts = {"network": self.network, "optimizer": self.optimizer}
        parts |= {"average": self.average, "best": self.best}
        self.adversary = None
        self.windows = sum(1 for _ in job.windows(0))  # of an epoch
        steps = self.settings.epochs * self.windows
        if self.settings.loss == "bce-adversarial":
            if ranks.count() > 1:
                ranks.stop(f"{job.run} has an adversary (train it in one process, not by torchrun)")
            rival = self.adversary = Adversary(self.settings, job.params.model.size, self.device)
            parts |= {"discriminator": rival.discriminator, "its_optimizer": rival.optimizer}
            steps = (steps + 1) // 2  # the discriminator takes every other one
        parts["schedule"] = self.schedule = make_schedule(self.optimizer, self.settings, steps)
        self.parts = {name: part for name, part in parts.items() if part is not None}

    def _check_validation(self) -> None:
        """An error where a setting chooses by validation clips and there are none.

        The val part of Hollywood-2 and UCF-sports holds their test clips, which choose nothing.
        """
        for key in ("schedule", "keep"):
            choice = getattr(self.settings, key)
            if choice in ("plateau", "best") and all(c.split != "val" for c in self.job.val):
                needs = f"{self.job.run} has no validation clips for {key}: {choice}"
                raise SalemaError(f"{needs} (choose another {key})")

    def _start_epoch(self) -> None:
        self.position, self.state = 0, None  # windows of the epoch that are done; after the last
        self.losses: list[float] = []  # of these windows
        self.clips: dict[str, list[float]] = {}  # clip -> sum of losses, number of frames
        self.skipped: list[str] = []  # clips of windows that could not be read

    def announce(self) -> None:
        """Say where training resumes and what several processes share."""
        places = torch.tensor([[self.steps, self.position]], device=self.device)
        if len(set(map(tuple, ranks.whole(places).tolist()))) > 1:
            ranks.stop("the processes see different checkpoints (share the folder .salema)")
        run, where = self.job.run, f"after epoch {self.epoch}"
        if self.position and self.epoch == len(self.history):
            where = f"in epoch {self.epoch + 1}, window {self.position}"
        if self.steps:
            ranks.tell(f"{run}: resuming {where}")
        if ranks.count() > 1:
            own = ", and each normalises by its own clips" if len(self.network.branches) else ""
            shared = f"share the batch of {self.settings.batch}{own}"
            ranks.tell(f"{run}: {ranks.count()} processes {shared}")

    def one_epoch(self) -> None:
        """Train on every window once, then compute the validation loss; or on what is left."""
        if self.epoch == len(self.history):
            self._train()
            self.epoch += 1
        mean = float(np.mean(self.losses))
        row = {"epoch": self.epoch, "train_loss": mean, "val_loss": self._val()}
        row |= {f"alpha_{layer}": alpha for layer, alpha in self.network.alphas().items()}
        self.history.append(row)
        if self.best is not None and self.kept() is row:
            self.best.load_state_dict(self.result().state_dict())
        after_epoch(self.schedule, row["val_loss"])
        self._start_epoch()

    def _train(self) -> None:
        """The windows of an epoch that are not done yet."""
        placement = self.network.placement
        if isinstance(self.settings, Finetune) and placement.thaw:
            thaw(self.network, self.epoch)
        self.network.train()
        self.wrapped = ranks.wrapped(self.network, placement.rectified and placement.learned)
        readers = list(self.job.windows(self.epoch))
        windows = ahead((read() for read in readers[self.position :]), 4)
        name = f"{self.job.run} {self.epoch + 1}/{self.settings.epochs}"
        hidden = True if ranks.rank() else None
        bar = tqdm(windows, name, len(readers), initial=self.position, disable=hidden)
        with closing(windows):
            for window in bar:
                state = None if window.first else self.state
                if state is not None:
                    state = state.each(partial(ranks.own, each=len(window.frames)))
                loss, self.state = self._step(window, state)
                self.losses.append(loss)
                self.position += 1
                self._keep()
        if self.checkpoints and not ranks.rank():
            self._write_clips(self.checkpoints.folder / f"clips-{self.epoch + 1}.csv")

    def _step(self, window: Window, state: State | None) -> tuple[float, State]:
        """Train on a window; returns the loss per frame and the state after the window."""
        frames, targets = window.tensors(self.device)
        places = ranks.indices(len(window.clips))
        seeds = (f"{self.job.params.seed} {self.job.run} {self.steps} {place}" for place in places)
        self.network.draws = [zlib.crc32(seed.encode()) for seed in seeds]
        maps, state = self._maps(self.wrapped, frames, state)
        loss, mean = self._loss(window, frames, maps, targets)
        self.steps += 1
        if loss.requires_grad:
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.settings.clip_norm is not None:
                norm = self.settings.clip_norm * frames.shape[1]
                nn.utils.clip_grad_norm_(self.network.parameters(), norm)
            self.optimizer.step()
            after_step(self.schedule)
            self._follow()
        return mean, state.each(Tensor.detach)

    def _maps(
        self, network: nn.Module, frames: Tensor, state: State | None
    ) -> tuple[Tensor, State]:
        """Maps of a window in the precision of the run."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            return network(frames, state)

    def _loss(
        self, window: Window, frames: Tensor, maps: Tensor, targets: Tensor
    ) -> tuple[Tensor, float]:
        """The loss to train on, and the mean loss per frame of the group, over all processes.

        The mean over processes of the first one is the loss of the group, summed over its frames
        and averaged over its clips. Notes the loss of each clip, and what the processes ask for.
        """
        finite = torch.isfinite(maps).flatten(1).all(1)
        if not bool(finite.all()):  # the BCE fails on values outside [0, 1]
            losses = torch.where(finite, 0.0, torch.nan)[:, None].expand(maps.shape[:2])
            counted = torch.ones_like(losses)
        elif self.adversary is not None and maps.requires_grad:
            images = self.network.normalise(frames.flatten(0, 1)).float()
            flat = maps.flatten(0, 1), targets.flatten(0, 1)
            losses = self.adversary.loss(*flat, images, self.steps).expand(maps.shape[:2])
            counted = torch.ones_like(losses)
        else:
            losses, counted = frame_losses(maps, targets, self.settings)
        weights = torch.from_numpy(window.weights).to(maps.device)
        sums, counts = (losses * counted).sum(1) * weights, counted.sum(1) * weights
        asked = self.checkpoints.asked() if self.checkpoints else (0, 0)
        asked = weights.new_tensor(asked).expand(len(weights), 2)
        own = torch.cat([torch.stack([sums.detach(), counts, weights], 1), asked], 1)
        table = ranks.whole(own).tolist()
        self._asked = int(max(row[3] for row in table)), any(row[4] for row in table)
        rows = dict(enumerate(table[: len(window.clips)]))
        self._note(window, rows)
        total, count = (sum(row[i] for row in rows.values()) for i in (0, 1))
        return sums.sum() * (ranks.count() * maps.shape[1] / max(count, 1)), total / max(count, 1)

    def _note(self, window: Window, rows: dict[int, list[float]]) -> None:
        """Keep the losses of the clips; end where one is not finite or too many are unreadable."""
        bad = [window.clips[i] for i, (loss, *_) in rows.items() if not math.isfinite(loss)]
        if bad:
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            where = f"step {self.steps + 1}, rate {rate:.3g}, {', '.join(bad)}"
            what = f"the loss of {self.job.run} is not finite: {where}"
            ranks.stop(f"{what} (lower learning_rate, or look at the clip)")
        for i, (loss, count, weight, *_) in rows.items():
            if weight == 0:
                self.skipped.append(window.clips[i])
            before = self.clips.get(window.clips[i], [0.0, 0.0])
            self.clips[window.clips[i]] = [before[0] + loss, before[1] + count]
        most = self.job.params.guards.skip_fraction * self.windows * self.settings.batch
        if len(self.skipped) > most:
            problems = ranks.gathered(window.problems)
            names = ", ".join(dict.fromkeys(self.skipped[-5:]))
            what = f"{len(self.skipped)} windows of {self.job.run} cannot be read, of {names}"
            ranks.stop(f"{what}: {problems[0]}")

    def _keep(self) -> None:
        """Write a checkpoint where a process asks for one; end where one has had a signal."""
        number, due = self._asked
        if self.checkpoints and (number or due):
            self.checkpoints.save(self.state_dict())
        if number and ranks.rank():
            sys.exit(128 + number)
        if number:
            what = f"{self.job.run} is kept, {len(self.history)} epochs and {self.position} windows"
            raise KeyboardInterrupt(number, what)

    def _follow(self) -> None:
        """Move the average of the weights towards the weights; faster in the first steps."""
        if self.average is None:
            return
        decay = min(self.settings.average, (1 + self.steps) / (10 + self.steps))
        slow, fast = self.average.state_dict(), self.network.state_dict()
        with torch.no_grad():
            for name, tensor in slow.items():
                if tensor.is_floating_point():
                    tensor.lerp_(fast[name], 1 - decay)
                else:
                    tensor.copy_(fast[name])

    @torch.no_grad()
    def _val(self) -> float | None:
        """The mean loss per frame of the validation windows; None if there are none."""
        if self.skipped:
            names = ", ".join(dict.fromkeys(self.skipped))
            ranks.tell(f"{self.job.run}: {len(self.skipped)} windows were skipped, of {names}")
            self.skipped = []
        network = self.result().eval()
        losses, state = [], None
        for window in ahead(read() for read in self.job.windows(None)):
            frames, targets = window.tensors(self.device)
            maps, state = self._maps(network, frames, None if window.first else state)
            losses.append(self._loss(window, frames, maps, targets)[1])
            self._keep()
        return float(np.mean(losses)) if losses else None

    def result(self) -> SaliencyModel:
        """The trained network, or the average of its weights where one is kept."""
        return self.average or self.network

    def kept(self) -> Row:
        """The row of the epoch whose weights are kept: the last, or the first of the best."""
        if self.best is None:
            return self.history[-1]
        return min(self.history, key=lambda row: row["val_loss"])

    def _write_clips(self, path: Path) -> None:
        """A table of the clips that were trained on, with the highest loss per frame first."""
        rows = [
            (total / max(count, 1), int(count), clip) for clip, (total, count) in self.clips.items()
        ]
        with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("loss", "frames", "clip"), *sorted(rows, reverse=True)])

    def state_dict(self) -> dict:
        """Everything that the next window depends on, of all processes."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        begun = self.epoch + (self.position > 0 and self.epoch == len(self.history))
        state = self.state and tuple(self.state.each(ranks.whole))
        own = {name: getattr(self, name) for name in PROGRESS}
        return parts | own | {"begun": begun, "state": state}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for name in PROGRESS:
            setattr(self, name, state[name])
        if state["state"] is not None:
            self.state = State(*state["state"]).each(lambda rows: rows.to(self.device))
