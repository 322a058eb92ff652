"""The command line: `salema ...`, or `python -m salema ...`."""

import argparse
import os
import sys
import warnings
from pathlib import Path

from salema.files import SalemaError

EPILOG = "Bad input ends with status 2 and one line; work that ended early with status 1."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 (ended early) or 2 (bad input)."""
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.command(parsed) or 0
    except SalemaError as error:
        print(f"salema: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("\nsalema: stopped; the same command goes on from what is done", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe went away: nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        print(f"salema: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="salema", description="Video saliency with a memory.", epilog=EPILOG)
    parser.add_argument("--params", default="params.yaml", help="the study's parameters")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=EPILOG)
        added.set_defaults(command=function, parser=added)
        return added

    _for_everybody(command)
    _for_the_study(command)
    return parser


def _for_everybody(command: object) -> None:
    predict = command("predict", _predict, "maps of videos, folders, images, a camera, a data set")
    predict.add_argument("sources", nargs="*", metavar="SOURCE", help="file, folder or camera:0")
    _weights(predict)
    predict.add_argument("--out", type=Path, help="folder for the maps (default: saliency)")
    predict.add_argument(
        "--format",
        choices=["png", "gray", "npy"],
        default="png",
        help="pictures, one lossless video, or one array (default: png)",
    )
    predict.add_argument("--overlay", type=Path, help="an .mp4 of the video with its maps")
    predict.add_argument("--view", type=Path, help="one .html page to look at")
    predict.add_argument("--size", choices=["source", "model"], default="source")
    _looks(predict)
    _where(predict)
    predict.add_argument("--run", help="of the study: its weights on its data (see params.yaml)")
    predict.add_argument("--submission", type=Path, help="with --dataset: a .zip for the server")

    evaluate = command("evaluate", _evaluate, "score anybody's maps, or a run of the study")
    evaluate.add_argument("predictions", nargs="?", type=Path, help="a folder of maps")
    _where(evaluate)
    evaluate.add_argument(
        "--protocol", default="exact", help="exact | dhf1k | salema2019 | hevc33-peer"
    )
    evaluate.add_argument("--every", type=int, default=1, help="score each n-th frame")
    evaluate.add_argument("--paired", type=Path, help="other maps, or a table clip by clip")
    evaluate.add_argument("--weights", type=Path, help="what made the maps: its clips are refused")
    evaluate.add_argument("--allow-seen", action="store_true", help="score training clips, marked")
    evaluate.add_argument("--csv", type=Path, help="write the scores clip by clip")
    evaluate.add_argument("--run", help="of the study (see params.yaml)")

    view = command("view", _view, "one self-contained HTML page for a video")
    view.add_argument("source")
    view.add_argument("--out", type=Path, help="the page (default: <name>.html)")
    _looks(view)
    _weights(view)

    convert = command("convert", _convert, "an authors' checkpoint as a weights file of ours")
    convert.add_argument("old", type=Path)
    convert.add_argument("new", type=Path)
    convert.add_argument("--half", action="store_true", help="store fp16, half the size")
    _placed(convert)

    export = command("export", _export, "one step of the network as ONNX")
    export.add_argument("out", type=Path)
    _file(export)

    command("doctor", _doctor, "what this machine has, and what to mend")


def _for_the_study(command: object) -> None:
    sample = command("sample", _sample, "write small synthetic data sets in the official layouts")
    sample.add_argument("folder", type=Path)
    sample.add_argument("--seed", type=int, default=0)

    index = command("index", _index, "what lies under data.root -> the manifest")
    index.add_argument("--check", action="store_true", help="print a table; 1: it would stumble")
    index.add_argument("--root", type=Path, help="instead of data.root and $SALEMA_DATA")

    tune = command("tune", _tune, "train a static network on images")
    tune.add_argument("run")
    finetune = command("finetune", _finetune, "train a placement on clips")
    finetune.add_argument("run")
    finetune.add_argument("--init", type=Path, help="weights to start from, instead of static's")
    finetune.add_argument("--dataset", help="clips to train on, instead of data.finetune")
    protocols = command("protocols", _protocols, "a run of the study by every protocol")
    protocols.add_argument("run")
    report = command("report", _report, "execute a notebook into reports/<profile>/")
    report.add_argument("notebook")
    report.add_argument(
        "--local", action="store_true", help="into reports/local, with frames that git must not see"
    )


def _looks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--colormap", default="turbo")
    parser.add_argument("--opacity", type=float, default=0.7)
    parser.add_argument("--shot-reset", action="store_true", help="forget at every cut")
    parser.add_argument("--overwrite", action="store_true", help="make anew what exists")


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, help="ours or the authors' (default: starter)")
    parser.add_argument("--sha256", help="what the weights file must hash to")
    _placed(parser)


def _weights(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--chunk", type=int, default=16, help="frames at once; same maps for any")


def _placed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--placement", help="for the authors' files: static, ema30, clstm30, ...")
    parser.add_argument("--alpha", type=float, help="for their EMA files: weight of a new frame")


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", help="DHF1K, Hollywood-2, UCF-sports, HEVC33, other, ...")
    parser.add_argument("--root", type=Path, help="folder that holds the data set's folder")
    parser.add_argument("--split", choices=["train", "val", "test"])
    parser.add_argument("--videos", help="numbers, both ends included: 601-700")


# ---------------------------------------------------------------------- what they do


MODEL = ("weights", "sha256", "placement", "alpha", "device", "precision", "chunk")
WHERE = ("dataset", "root", "split", "videos")


def _alone(parsed: argparse.Namespace, mode: str, *allowed: str) -> None:
    """Raises SalemaError for an option that would mean nothing beside `mode`."""
    for name, value in vars(parsed).items():
        free = (*allowed, mode.lstrip("-"), "command", "parser", "params")
        if name not in free and value and value != parsed.parser.get_default(name):
            given = {"sources": "SOURCE", "predictions": "folder"}.get(name)
            given = given or "--" + name.replace("_", "-")
            raise SalemaError(f"{mode} takes no {given} (leave one of the two out)")


def _model(parsed: argparse.Namespace) -> object:
    from salema.model import weights

    if parsed.chunk < 1:
        raise SalemaError(f"--chunk must be at least 1, not {parsed.chunk} (16 is a good one)")
    if not 0 <= getattr(parsed, "opacity", 0) <= 1:
        raise SalemaError(f"--opacity must be in [0, 1], not {parsed.opacity} (0.7 is a good one)")
    model = weights.load(parsed.weights, parsed.device, parsed.precision, parsed.placement,
                         parsed.alpha, parsed.sha256)  # fmt: skip
    model.chunk = parsed.chunk
    if sys.stderr.isatty():  # elsewhere, stderr holds what went wrong and nothing else
        print(f"{model.device} {model.precision}", file=sys.stderr)
    return model


def _root(parsed: argparse.Namespace) -> Path:
    root = parsed.root or os.environ.get("SALEMA_DATA")
    if not root:
        raise SalemaError(f"where is {parsed.dataset}? (pass --root, or set SALEMA_DATA)")
    return Path(root)


def _dataset(parsed: argparse.Namespace, ground_truth: bool) -> list:
    from salema import data as datasets
    from salema.predict import sources as predict

    videos = predict.numbers(parsed.videos) if parsed.videos else None
    return datasets.load(_root(parsed), parsed.dataset, parsed.split, videos, ground_truth)


def _predict(parsed: argparse.Namespace) -> int:
    from salema import params
    from salema.predict import sources as predict

    if parsed.run:
        _alone(parsed, "--run")
        print(predict.predict_run(params.read(parsed.params), parsed.run))
        return 0
    if parsed.dataset:
        _alone(parsed, "--dataset", *MODEL, *WHERE, "out", "format", "overwrite", "submission")
        return _predict_dataset(parsed)
    if not parsed.sources:
        raise SalemaError("nothing to predict (name a video, a folder, an image or camera:0)")
    _alone(parsed, "SOURCE", *MODEL, "sources", "out", "format", "overlay", "view", "size",
           "colormap", "opacity", "shot_reset", "overwrite")  # fmt: skip
    folder = parsed.out
    if folder is None and not (parsed.overlay or parsed.view):
        folder = Path("saliency")
    output = predict.Output(
        folder, parsed.format, parsed.overlay, parsed.size, parsed.colormap, parsed.opacity,
        parsed.overwrite, parsed.shot_reset,
    )  # fmt: skip
    if parsed.view and len(parsed.sources) != 1:
        raise SalemaError("--view takes one source (run it once for each)")
    model = _model(parsed)
    status = 0
    if folder or parsed.overlay:
        status = predict.predict_sources(model, parsed.sources, output)
    if parsed.view:
        status = max(status, _page(model, parsed.sources[0], parsed.view, parsed))
    return status


def _page(model: object, source: str, out: Path, parsed: argparse.Namespace) -> int:
    from salema.tools import view

    stopped = view.page(model, source, out, parsed.overwrite, parsed.colormap, parsed.opacity,
                        parsed.shot_reset)  # fmt: skip
    if stopped:
        print(f"{source}: {stopped}; what there was is in {out}", file=sys.stderr)
        return 1
    print(out)
    return 0


def _predict_dataset(parsed: argparse.Namespace) -> int:
    from salema.model import weights
    from salema.predict import sources as predict

    clips = _dataset(parsed, ground_truth=False)
    if parsed.submission:
        if parsed.dataset != "DHF1K" or parsed.format != "png":
            raise SalemaError("--submission needs --dataset DHF1K and --format png (mend them)")
        if parsed.submission.exists():
            raise SalemaError(f"{parsed.submission} exists (choose another name, or remove it)")
    model = _model(parsed)
    name = parsed.weights.stem if parsed.weights else "salema"
    folder = parsed.out or Path("saliency")
    status = predict.predict_dataset(model, clips, folder, parsed.format, parsed.overwrite, name,
                                     weights.identity(model))  # fmt: skip
    if parsed.submission:
        predict.submission(folder / f"{name}_predictions", clips, parsed.submission)
        print(f"{parsed.submission}: {len(clips)} videos")
    return status


def _evaluate(parsed: argparse.Namespace) -> int:
    from salema import data as datasets
    from salema import params
    from salema.score import evaluate

    if parsed.run:
        _alone(parsed, "--run", "allow_seen")
        evaluate.evaluate_run(params.read(parsed.params), parsed.run, parsed.allow_seen)
        return 0
    if not (parsed.predictions and parsed.dataset):
        raise SalemaError("evaluate what? (name a folder of maps and --dataset)")
    clips = _dataset(parsed, ground_truth=True)
    everyone = datasets.load(_root(parsed), parsed.dataset)
    seen = evaluate.seen_by(parsed.weights)
    evaluate.evaluate_folder(parsed.predictions, clips, parsed.protocol, every=parsed.every,
                             seen=seen, allow_seen=parsed.allow_seen, paired=parsed.paired,
                             csv=parsed.csv, everyone=everyone)  # fmt: skip
    return 0


def _view(parsed: argparse.Namespace) -> int:
    out = parsed.out or Path(f"{Path(parsed.source).resolve().stem}.html")
    return _page(_model(parsed), parsed.source, out, parsed)


def _convert(parsed: argparse.Namespace) -> int:
    from salema.model import weights

    weights.convert(parsed.old, parsed.new, parsed.placement, parsed.alpha, parsed.half)
    print(parsed.new)
    return 0


def _export(parsed: argparse.Namespace) -> int:
    from salema.model import weights
    from salema.tools import export

    model = weights.read(parsed.weights, parsed.placement, parsed.alpha, parsed.sha256)
    export.export(model, parsed.out)
    print(parsed.out)
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from salema.tools import doctor

    return doctor.report()


def _sample(parsed: argparse.Namespace) -> int:
    from data import make_sample as sample

    sample.write(parsed.folder, seed=parsed.seed)
    print(parsed.folder)
    return 0


def _index(parsed: argparse.Namespace) -> int:
    from salema import params
    from salema.data import index

    settings = params.read(parsed.params)
    root = parsed.root or settings.root
    if parsed.check:
        return index.check(root, settings)
    print(index.write(root, settings))
    return 0


def _tune(parsed: argparse.Namespace) -> int:
    from salema import params
    from salema.train import loop as train

    print(train.tune(params.read(parsed.params), parsed.run))
    return 0


def _finetune(parsed: argparse.Namespace) -> int:
    from salema import params
    from salema.train import loop as train

    settings = params.read(parsed.params)
    print(train.finetune(settings, parsed.run, parsed.init, parsed.dataset))
    return 0


def _protocols(parsed: argparse.Namespace) -> int:
    from salema import params
    from salema.score import evaluate

    print(evaluate.compare_protocols(params.read(parsed.params), parsed.run))
    return 0


def _report(parsed: argparse.Namespace) -> int:
    from salema import params
    from salema.report.execute import execute

    print(execute(parsed.notebook, params.read(parsed.params), parsed.local))
    return 0


if __name__ == "__main__":
    sys.exit(main())
