"""The command line: `salema ...`, or `python -m salema ...`."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from salema.files import SalemaError

if TYPE_CHECKING:
    from salema.params import Params
    from salema.predict.predictor import Predictor
    from salema.predict.sources import Output

EPILOG = "Bad input ends with status 2 and one line; work that ended early with status 1."
Command = Callable[[argparse.Namespace], int]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 (ended early) or 2 (bad input)."""
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.command(parsed)
    except SalemaError as error:
        print(f"salema: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\nsalema: stopped; run the same command again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


# ---------------------------------------------------------------------- the options


def _chunk(text: str) -> int:
    if (chunk := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {chunk}")
    return chunk


def _opacity(text: str) -> float:
    if not 0 <= (opacity := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], not {opacity}")
    return opacity


MODEL = ("--weights", "--sha256", "--placement", "--alpha", "--device", "--precision", "--chunk")
MAPS = ("--out", "--format", "--overwrite")
LOOKS = ("--colormap", "--opacity", "--shot-reset")
WHERE = ("--root", "--split", "--videos")
SOURCES = ("sources", *MODEL, *MAPS, "--overlay", "--view", "--size", *LOOKS)
SCORING = ("--protocol", "--every", "--paired", "maps --weights", "--allow-seen", "--csv")
SCORES = ("predictions", "--dataset", *WHERE, *SCORING)
PAGE = ("source", "page --out", "--overwrite", *LOOKS, *MODEL)
FLAG = {"action": "store_true"}
PATH = {"type": Path}
# What argparse gets of each option; the last word is its name. Others are plain arguments.
OPTIONS: dict[str, dict[str, Any]] = {
    "--alpha": {"type": float, "help": "for their EMA files: weight of a new frame"},
    "--allow-seen": FLAG | {"help": "score training clips, marked"},
    "--check": FLAG | {"help": "print a table; 1: the study would fail"},
    "--chunk": {"type": _chunk, "default": 16, "help": "frames at once; same maps for any"},
    "--colormap": {"default": "turbo"},
    "--csv": PATH | {"help": "write the scores clip by clip"},
    "--dataset": {"help": "DHF1K, Hollywood-2, UCF-sports, HEVC33, other, ..."},
    "--device": {"default": "auto"},
    "--every": {"type": int, "default": 1, "help": "score each n-th frame"},
    "finetune --dataset": {"help": "clips to train on, instead of data.finetune"},
    "--format": {
        "choices": ["png", "gray", "npy"],
        "default": "png",
        "help": "pictures, one lossless video, or one array (default: png)",
    },
    "--half": FLAG | {"help": "store fp16, half the size"},
    "index --root": PATH | {"help": "instead of data.root and $SALEMA_DATA"},
    "--init": PATH | {"help": "weights to start from, instead of static's"},
    "--local": FLAG | {"help": "into reports/local, with frames that git must not see"},
    "maps --weights": PATH | {"help": "the weights of the maps; their training clips are refused"},
    "--opacity": {"type": _opacity, "default": 0.7, "help": "in [0, 1] (default: 0.7)"},
    "--out": PATH | {"help": "folder for the maps (default: saliency)"},
    "--overlay": PATH | {"help": "an .mp4 of the video with its maps"},
    "--overwrite": FLAG | {"help": "replace what exists"},
    "page --out": PATH | {"help": "the page (default: <name>.html)"},
    "--paired": PATH | {"help": "other maps, or a table clip by clip"},
    "--placement": {"help": "for the authors' files: static, ema30, clstm30, ..."},
    "--precision": {"choices": ["auto", "fp32", "bf16"], "default": "auto"},
    "predictions": PATH | {"nargs": "?", "help": "a folder of maps"},
    "--protocol": {"default": "exact", "help": "exact | dhf1k | salema2019 | hevc33-peer"},
    "--root": PATH | {"help": "folder that holds the data set's folder"},
    "--run": {"help": "of the study, see params.yaml"},
    "--sha256": {"help": "the hash that the weights file must have"},
    "--shot-reset": FLAG | {"help": "forget at every cut"},
    "--size": {"choices": ["source", "model"], "default": "source"},
    "sources": {"nargs": "*", "metavar": "SOURCE", "help": "file, folder or camera:0"},
    "--split": {"choices": ["train", "val", "test"]},
    "--submission": PATH | {"help": "a .zip for DHF1K's server"},
    "--videos": {"help": "numbers, both ends included: 601-700"},
    "--view": PATH | {"help": "one .html page to look at"},
    "--weights": PATH | {"help": "ours or the authors' (default: starter)"},
}


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line. An option may select a mode, which has its own options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = self.prog
        self.modes: dict[str, _Parser] = {}

    def takes(self, command: Command, *options: str) -> "_Parser":
        """Let this parser run `command` with some of `OPTIONS`."""
        self.set_defaults(command=command)
        for option in options:
            self.add_argument(option.split()[-1], **OPTIONS.get(option, {}))
        return self

    def mode(self, option: str, command: Command, *options: str) -> None:
        """Where `option` is given, the parser of `command` takes over."""
        self.modes[option] = parser = _Parser(prog=self.prog, description=f"With {option}:")
        parser.takes(command, option, *options).name = option

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for option, parser in self.modes.items():
            if any(word.split("=")[0] == option for word in args):
                return parser.parse_known_args(args, namespace)
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"{self.name} takes no {' '.join(rest)}")
        return parsed, rest

    def format_help(self) -> str:
        return "\n".join([super().format_help(), *(m.format_help() for m in self.modes.values())])

    def error(self, message: str) -> NoReturn:
        print(f"salema: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> _Parser:
    parser = _Parser(prog="salema", description="Video saliency with a memory.", epilog=EPILOG)
    parser.add_argument("--params", default="params.yaml", help="the parameters of the study")
    parser.add_argument("--profile", help="a profile of them (default: the one they name)")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, function: Command, text: str, *options: str) -> _Parser:
        return commands.add_parser(name, help=text, description=text).takes(function, *options)

    predict = command("predict", _predict, "maps of videos, pictures, a camera, ...", *SOURCES)
    predict.mode("--dataset", _predict_dataset, *WHERE, *MODEL, *MAPS, "--submission")
    predict.mode("--run", _predict_run)
    evaluate = command("evaluate", _evaluate, "score anybody's maps", *SCORES)
    evaluate.mode("--run", _evaluate_run, "--allow-seen")
    command("view", _view, "one self-contained HTML page for a video", *PAGE)
    files = ("old", "new", "--half", "--placement", "--alpha")
    command("convert", _convert, "an authors' checkpoint as a weights file of ours", *files)
    command("export", _export, "one step of the network as ONNX", "out", *MODEL[:4])
    command("doctor", _doctor, "what this machine has and what to fix")
    command("index", _index, "what is under data.root -> the manifest", "--check", "index --root")
    command("tune", _tune, "train a static network on images", "run")
    start = ("run", "--init", "finetune --dataset")
    command("finetune", _finetune, "train a placement on clips", *start)
    command("protocols", _protocols, "a run of the study by every protocol", "run")
    command("report", _report, "a notebook, executed into reports/", "notebook", "--local")
    return parser


# ---------------------------------------------------------------------- the commands


def _study(parsed: argparse.Namespace) -> "Params":
    from salema import params

    return params.read(parsed.params, parsed.profile)


def _model(parsed: argparse.Namespace) -> "Predictor":
    from salema.predict import load

    file = (parsed.weights, parsed.device, parsed.precision)
    predictor = load.load(*file, parsed.placement, parsed.alpha, parsed.sha256)
    predictor.chunk = parsed.chunk
    if sys.stderr.isatty():  # elsewhere, stderr holds errors and nothing else
        print(f"{predictor.device} {predictor.precision}", file=sys.stderr)
    return predictor


def _root(parsed: argparse.Namespace) -> Path:
    root = parsed.root or os.environ.get("SALEMA_DATA")
    if not root:
        raise SalemaError(f"where is {parsed.dataset}? (pass --root, or set SALEMA_DATA)")
    return Path(root)


def _dataset(parsed: argparse.Namespace, ground_truth: bool) -> list:
    from salema import data
    from salema.predict import sources

    videos = sources.numbers(parsed.videos) if parsed.videos else None
    return data.load(_root(parsed), parsed.dataset, parsed.split, videos, ground_truth)


def _predict_run(parsed: argparse.Namespace) -> int:
    from salema.predict import sources

    print(sources.predict_run(_study(parsed), parsed.run))
    return 0


def _predict(parsed: argparse.Namespace) -> int:
    from salema.predict import sources

    if not parsed.sources:
        raise SalemaError("nothing to predict (name a video, a folder, an image or camera:0)")
    folder = parsed.out
    if folder is None and not (parsed.overlay or parsed.view):
        folder = Path("saliency")
    if parsed.view and len(parsed.sources) != 1:
        raise SalemaError("--view takes one source (run it once for each)")
    looks = (parsed.colormap, parsed.opacity, parsed.overwrite, parsed.shot_reset)
    output = sources.Output(folder, parsed.format, parsed.overlay, parsed.size, *looks)
    predictor = _model(parsed)
    status = 0
    if folder or parsed.overlay:
        status = sources.predict_sources(predictor, parsed.sources, output)
    if parsed.view:
        status = max(status, _page(predictor, parsed.sources[0], parsed.view, output))
    return status


def _page(predictor: "Predictor", source: str, out: Path, output: "Output") -> int:
    from salema.tools import view

    stopped = view.page(predictor, source, out, output)
    if stopped:
        print(f"{source}: {stopped}; the frames before that are in {out}", file=sys.stderr)
        return 1
    print(out)
    return 0


def _predict_dataset(parsed: argparse.Namespace) -> int:
    from salema.predict import load, sources

    clips = _dataset(parsed, ground_truth=False)
    if parsed.submission:
        if parsed.dataset != "DHF1K" or parsed.format != "png":
            raise SalemaError("--submission needs --dataset DHF1K and --format png (change them)")
        if parsed.submission.exists():
            raise SalemaError(f"{parsed.submission} exists (choose another name, or remove it)")
    predictor = _model(parsed)
    name = parsed.weights.stem if parsed.weights else "salema"
    folder = parsed.out or Path("saliency")
    about = load.identity(predictor)
    status = sources.predict_dataset(
        predictor, clips, folder, parsed.format, parsed.overwrite, name, about
    )
    if parsed.submission:
        sources.submission(folder / f"{name}_predictions", clips, parsed.submission)
        print(f"{parsed.submission}: {len(clips)} videos")
    return status


def _evaluate_run(parsed: argparse.Namespace) -> int:
    from salema.score import evaluate

    evaluate.evaluate_run(_study(parsed), parsed.run, parsed.allow_seen)
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    from salema import data
    from salema.score import evaluate
    from salema.score.maps import Maps

    folder, paired, protocol = parsed.predictions, parsed.paired, parsed.protocol
    if not (folder and parsed.dataset):
        raise SalemaError("evaluate what? (name a folder of maps and --dataset)")
    clips = _dataset(parsed, ground_truth=True)
    if not folder.is_dir():
        raise SalemaError(f"no such folder of maps: {folder} (check the path)")
    if parsed.csv and parsed.csv.exists():
        raise SalemaError(f"{parsed.csv} exists (choose another name, or remove it)")
    everyone, other = data.load(_root(parsed), parsed.dataset), None
    if paired and not paired.is_dir():
        other = evaluate.read_scores(paired, [clip.name for clip in clips])
    options = {"protocol": protocol, "every": parsed.every, "everyone": everyone}
    seen = evaluate.seen_by(parsed.weights, folder)
    scores = evaluate.score_clips(
        clips, Maps(folder), seen=seen, allow_seen=parsed.allow_seen, **options
    )
    result = evaluate.summary(scores, protocol)
    print(evaluate.table(result, f"{clips[0].dataset}, {protocol}"))
    if parsed.csv:
        evaluate.write_scores(scores, parsed.csv)
    if paired:
        other = other or evaluate.rows(evaluate.score_clips(clips, Maps(paired), **options))
        print(evaluate.differences(evaluate.rows(scores), other))
    return 0


def _view(parsed: argparse.Namespace) -> int:
    from salema.predict.sources import Output

    out = parsed.out or Path(f"{Path(parsed.source).resolve().stem}.html")
    looks = (parsed.colormap, parsed.opacity, parsed.overwrite, parsed.shot_reset)
    output = Output(None, "png", None, "source", *looks)
    return _page(_model(parsed), parsed.source, out, output)


def _convert(parsed: argparse.Namespace) -> int:
    from salema.predict import load

    load.convert(parsed.old, parsed.new, parsed.placement, parsed.alpha, parsed.half)
    print(parsed.new)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from salema.predict import load
    from salema.tools import export

    network, card = load.read(parsed.weights, parsed.placement, parsed.alpha, parsed.sha256)
    export.export(network, parsed.out, card)
    print(parsed.out)
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from salema.tools import doctor

    return doctor.report()


def _index(parsed: argparse.Namespace) -> int:
    from salema.data import manifest

    settings = _study(parsed)
    root = parsed.root or settings.root
    if parsed.check:
        return manifest.check(root, settings)
    print(manifest.write(root, settings))
    return 0


def _tune(parsed: argparse.Namespace) -> int:
    from salema.train import loop

    print(loop.tune(_study(parsed), parsed.run))
    return 0


def _finetune(parsed: argparse.Namespace) -> int:
    from salema.train import loop

    print(loop.finetune(_study(parsed), parsed.run, parsed.init, parsed.dataset))
    return 0


def _protocols(parsed: argparse.Namespace) -> int:
    from salema.score import evaluate

    print(evaluate.compare_protocols(_study(parsed), parsed.run))
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from salema.report.execute import execute

    print(execute(parsed.notebook, _study(parsed), parsed.local))
    return 0


if __name__ == "__main__":
    sys.exit(main())
