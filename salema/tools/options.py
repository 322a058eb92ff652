"""The options of the command line, and a parser whose errors are one line."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from salema.files import SalemaError

Command = Callable[[argparse.Namespace], "int | Path"]  # a status, or the file that was made


def _count(text: str) -> int:
    if not 1 <= (count := int(text)) <= 10_000:
        raise argparse.ArgumentTypeError(f"must be from 1 to 10000, not {count}")
    return count


def _opacity(text: str) -> float:
    if not 0 <= (opacity := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], not {opacity}")
    return opacity


def _margin(text: str) -> float:
    if not 0 < (margin := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {margin}")
    return margin


# What argparse gets of each option. The help also shows the choices and the default; where one
# command means something else by a name, the row starts with the command.
OPTIONS: dict[str, dict[str, Any]] = {
    # the model
    "--weights": dict(type=Path, help="a file of ours or the authors' (default: the starter)"),
    "--sha256": dict(help="the hash that the weights file must have"),
    "--placement": dict(help="for the authors' files: static, ema30, clstm30, ..."),
    "--static": dict(type=Path, help="the static network, which a VideoSalGAN checkpoint lacks"),
    "--alpha": dict(type=float, help="weight of the newest frame in an EMA, in (0, 1]"),
    "--device": dict(default="auto", help="auto, cpu, cuda or cuda:1"),
    "--precision": dict(default="auto", choices=["auto", "fp32", "bf16"], help="number format"),
    "--chunk": dict(default=16, type=_count, help="frames at once; no map depends on it"),
    # maps
    "sources": dict(nargs="*", metavar="SOURCE", help="video, folder, image or camera:0"),
    "--list": dict(metavar="FILE", help="one source a line; - is standard input"),
    "--shard": dict(metavar="I/N", help="this part only: 1/4, 2/4, 3/4 or 4/4"),
    "--engine": dict(default="here", choices=["here", "ray"], help="ray: on all of a cluster"),
    "--out": dict(type=Path, help="folder for the maps (default: saliency)"),
    "--format": dict(default="png", choices=["png", "gray", "npy"], help="pictures, video, array"),
    "--size": dict(default="source", choices=["source", "model"], help="size of the maps"),
    "--overwrite": dict(action="store_true", help="replace existing output"),
    "--overlay": dict(type=Path, help="an .mp4 of the video with its maps; a folder for several"),
    "--view": dict(type=Path, help="one .html page to look at"),
    "--colormap": dict(default="turbo", help="any color map of OpenCV"),
    "--opacity": dict(default=0.7, type=_opacity, help="of the colors, in [0, 1]"),
    "--shot-reset": dict(action="store_true", help="empty the memory at every cut"),
    "--submission": dict(type=Path, help="a .zip for DHF1K's server"),
    "source": dict(help="a video, a folder of frames or an image"),
    "controls --out": dict(type=Path, help="a new folder: one folder of maps a control"),
    "--tau": dict(default=0.4, type=float, help="time constant of the average, in seconds"),
    "view --out": dict(type=Path, help="the page (default: <name>.html)"),
    "demo --out": dict(type=Path, default=Path("demo.html"), help="the page"),
    "--open": dict(action="store_true", help="show the page in the browser"),
    # files of weights
    "--fps": dict(type=float, help="frame rate that alpha is for; others keep its seconds"),
    "old": dict(type=Path, help="a checkpoint of the authors, or a file of ours"),
    "new": dict(type=Path, help="the .safetensors file to write"),
    "--half": dict(action="store_true", help="store fp16, half the size"),
    "out": dict(type=Path, help="the .onnx file to write"),
    # data sets and scores
    "--dataset": dict(help="DHF1K, Hollywood-2, UCF-sports, SALICON, HEVC33, other, ..."),
    "--root": dict(type=Path, help="parent of the data set's folder (default: $SALEMA_DATA)"),
    "--split": dict(choices=["train", "val", "test"], help="one part of it (default: all)"),
    "--videos": dict(help="numbers, both ends included: 601-700 (default: all)"),
    "predictions": dict(type=Path, nargs="?", help="a folder of maps"),
    "--protocol": dict(default="exact", help="exact, dhf1k, salema2019, hevc33-peer or ntire26"),
    "--every": dict(default=1, type=_count, help="score each n-th frame"),
    "--paired": dict(type=Path, help="compare with other maps, or with a table of --csv"),
    "--margin": dict(default=0.1, type=_margin, help="of --paired: this NSS apart is equal"),
    "evaluate --weights": dict(type=Path, help="of the maps; refuse their training clips"),
    "--allow-seen": dict(action="store_true", help="score training clips, and mark the row"),
    "--csv": dict(type=Path, help="write a table with one row per clip"),
    "--frames": dict(type=Path, help="write the scores of each frame, an .npz file"),
    # the study
    "run": dict(help="a run of params.yaml: static, ema30, ..."),
    "--run": dict(help="a run of params.yaml: static, ema30, ..."),
    "--check": dict(action="store_true", help="print a table; status 1: the study would fail"),
    "index --root": dict(type=Path, help="instead of data.root and $SALEMA_DATA"),
    "--init": dict(type=Path, help="weights to start from (default: those of the row's start)"),
    "finetune --dataset": dict(help="clips to train on; with it or --init, a run of its own"),
    "notebook": dict(help="its name in notebooks/, or a path to it"),
    "--local": dict(action="store_true", help="write to reports/local, with frames for you only"),
}


class Parser(argparse.ArgumentParser):
    """Reports an error in one line. An option may select a mode, which has its own options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = self.prog
        self.modes: dict[str, Parser] = {}

    def takes(self, command: Command, options: str) -> "Parser":
        """Let this parser run `command` with some of `OPTIONS`."""
        self.set_defaults(command=command)
        for name in options.split():
            row = OPTIONS.get(f"{self.prog.split()[-1]} {name}") or OPTIONS[name]
            default = f" (default: {row['default']})" if "default" in row else ""
            self.add_argument(name, **row | {"help": row["help"] + default})
        return self

    def mode(self, option: str, command: Command, options: str = "") -> None:
        """Where `option` is given, the parser of `command` takes over."""
        self.modes[option] = parser = Parser(prog=self.prog, description=f"With {option}:")
        parser.takes(command, f"{option} {options}").name = option

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, or with the parser of a mode; what is left over is an error."""
        for option, parser in self.modes.items():
            if any(word.split("=")[0] == option for word in args):
                return parser.parse_known_args(args, namespace)
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"{self.name} takes no {' '.join(rest)}")
        return parsed, rest

    def format_help(self) -> str:
        """The help of this parser, then that of its modes."""
        return "\n".join([super().format_help(), *(m.format_help() for m in self.modes.values())])

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line."""
        line = SalemaError(f"{message[:500]} (see {self.prog} --help)")
        print(f"salema: error: {line}", file=sys.stderr)
        raise SystemExit(2)
