"""The command line: `salema ...`, or `python -m salema ...`."""

import argparse
import os
import signal
import sys
import warnings
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import salema
from salema.files import SalemaError, absent
from salema.tools.options import Command, Parser

if TYPE_CHECKING:
    from salema.data import Clip
    from salema.params import Params
    from salema.predict.many import Planned
    from salema.predict.predictor import Predictor
    from salema.predict.ranks import Item, Ranks
    from salema.predict.sources import Output


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 (ended early) or 2 (bad input).

    Ctrl-C gives 130, and SIGTERM, which clears up like it, 143.
    """
    with suppress(ValueError):  # outside the main thread, nobody listens to signals
        signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):  # a file's name may be no text at all
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print(message, file=sys.stderr)
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = _parser().parse_args(arguments or ["--help"])
    try:
        result = parsed.command(parsed)
        if isinstance(result, int):
            return result
        if os.environ.get("RANK", "0") == "0":  # torchrun's others write no files
            print(result)
        return 0
    except SalemaError as error:
        print(f"salema: error: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt as stop:
        what = stop.args[1] if len(stop.args) > 1 else "stopped"
        print(f"\nsalema: {what}; run the same command again to resume", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        fix = "pip install 'salema[study]', or see `salema doctor`"
        what = f"{error.name} is not installed ({fix})"
    except MemoryError:
        what = "not enough memory (give a smaller --chunk, or smaller pictures)"
    except OSError as error:  # a full disk, a folder that may not be read, a name that is too long
        of = f"cannot use {error.filename}: " if error.filename else ""
        what = f"{of}{error.strerror or error} (check the path and the free space)"
    print(f"salema: error: {SalemaError(what)}", file=sys.stderr)
    return 2


def _terminate(number: int, _: Any) -> NoReturn:
    raise KeyboardInterrupt(number)


def _parser() -> Parser:
    end = "Bad input ends with status 2 and one line; work that ended early with status 1."
    parser = Parser(prog="salema", description="Video saliency with a memory.", epilog=end)
    parser.add_argument("--version", action="version", version=f"salema {salema.__version__}")
    parser.add_argument("--params", default="params.yaml", help="the parameters of the study")
    parser.add_argument("--profile", help="a profile of them (default: the one they name)")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, function: Command, text: str, options: str = "") -> Parser:
        return commands.add_parser(name, help=text, description=text).takes(function, options)

    placed, looks = "--placement --alpha --static", "--colormap --opacity --shot-reset"
    model = f"--weights --sha256 {placed} --device --precision --chunk"
    maps, clips = "--out --format --overwrite", "--root --split --videos"
    files = f"sources --list --shard --engine {model} {maps} --overlay --view --size {looks}"
    predict = command("predict", _predict, "maps of videos, pictures, a camera, ...", files)
    predict.mode("--dataset", _predict_dataset, f"{clips} --shard {model} {maps} --submission")
    predict.mode("--run", _predict_run)
    scored = f"predictions --dataset {clips} --shard --protocol --every --paired --margin"
    scored += " --weights --csv --frames --allow-seen"
    evaluate = command("evaluate", _evaluate, "scores of anybody's maps", scored)
    evaluate.mode("--run", _evaluate_run, "--allow-seen")
    controlled = f"predictions --dataset {clips} --tau --out"
    command("controls", _controls, "what of a memory's gain is smoothing or delay", controlled)
    page = f"--out --overwrite --open {looks} {model}"
    command("view", _view, "one self-contained HTML page for a video", f"source {page}")
    command("demo", _view, "the same for a clip that comes with salema", page)
    checkpoints = f"old new --half --fps {placed}"
    command("convert", _convert, "an authors' checkpoint as a weights file of ours", checkpoints)
    stored = f"out --weights --sha256 {placed}"
    command("export", _export, "one step of the network as ONNX", stored)
    command("doctor", _doctor, "what this machine has and what to fix")
    command("index", _index, "what is under data.root -> the manifest", "--check --root")
    command("tune", _tune, "train a static network on images", "run")
    command("finetune", _finetune, "train a placement on clips", "run --init --dataset")
    command("crossvalidate", _crossvalidate, "the two arms of the study, fold by fold")
    command("protocols", _protocols, "a run of the study by every protocol", "run")
    command("report", _report, "a notebook, executed into reports/", "notebook --local")
    command("reproduced", _reproduced, "whether the report has the scores of the last commit")
    return parser


def _study(parsed: argparse.Namespace) -> "Params":
    from salema import params

    return params.read(parsed.params, parsed.profile)


def _model(parsed: argparse.Namespace) -> "Predictor":
    from salema.predict import load

    file = (parsed.weights, parsed.device, parsed.precision)
    predictor = load.load(*file, parsed.placement, parsed.alpha, parsed.sha256, parsed.static)
    predictor.chunk = parsed.chunk
    if sys.stderr.isatty():  # elsewhere, stderr holds errors and nothing else
        print(f"{predictor.device} {predictor.precision}", file=sys.stderr)
    return predictor


def _root(parsed: argparse.Namespace) -> Path:
    root = parsed.root or os.environ.get("SALEMA_DATA")
    if not root:
        raise SalemaError(f"where is {parsed.dataset}? (pass --root, or set SALEMA_DATA)")
    return Path(root)


def _clips(parsed: argparse.Namespace, ground_truth: bool) -> "list[Clip]":
    from salema import data
    from salema.predict import sources

    videos = sources.numbers(parsed.videos) if parsed.videos else None
    return data.load(_root(parsed), parsed.dataset, parsed.split, videos, ground_truth)


def _predict(parsed: argparse.Namespace) -> int:
    from salema.predict import many, sources

    if parsed.list == "-" or parsed.engine == "ray":
        _alone("--list -" if parsed.list == "-" else "--engine ray")
    if parsed.shard and parsed.engine == "ray":
        raise SalemaError("--engine ray shares out itself (leave --shard out)")
    names, several = many.listed(parsed.sources, parsed.list)
    if not names:
        raise SalemaError("nothing to predict (name a video, a folder, an image or camera:0)")
    if parsed.view and len(names) != 1:
        raise SalemaError("--view takes one source (run it once for each)")
    looks = (parsed.colormap, parsed.opacity, parsed.overwrite, parsed.shot_reset)
    several = several or parsed.shard or parsed.engine == "ray" or _ranks().world > 1
    no_maps = (parsed.overlay or parsed.view) and not several
    folder = parsed.out or (None if no_maps else Path("saliency"))
    output = sources.Output(folder, parsed.format, parsed.overlay, parsed.size, *looks)
    if several:
        return _predict_many(parsed, many.plan(names, output), output)
    predictor, status = _model(parsed), 0
    if folder or parsed.overlay:
        status = sources.predict_sources(predictor, names, output)
    if parsed.view:
        status = max(status, _page(predictor, names[0], parsed.view, output))
    return status


def _predict_many(parsed: argparse.Namespace, planned: "list[Planned]", output: "Output") -> int:
    from salema.predict import cluster, load, many, sources

    if parsed.view:
        raise SalemaError("--view is for one source (name that source alone, in one process)")
    if parsed.engine == "ray":
        cluster.check()
    planned, predictor = _share(parsed, planned, "sources"), _model(parsed)
    about, there = load.identity(predictor), output.folder / "salema_predictions.json"
    sources.record(there, about, output.overwrite)
    if parsed.engine == "here":
        return many.predict_many(predictor, planned, output)
    weights, static = (path and path.absolute() for path in (parsed.weights, parsed.static))
    placed = parsed.placement, parsed.alpha, parsed.sha256, static
    model = weights, parsed.device, parsed.precision, *placed
    return cluster.predict_cluster(planned, output, parsed.chunk, model)


def _ranks(parsed: argparse.Namespace | None = None) -> "Ranks":
    from salema.predict import ranks

    return ranks.ranks(parsed and parsed.shard)


def _share(parsed: argparse.Namespace, items: "list[Item]", kind: str) -> "list[Item]":
    """What this process takes; a line says so, as others must take the rest."""
    ranks = _ranks(parsed)
    mine = ranks.take(items)
    if ranks.world > 1 or parsed.shard:
        by_hand = f", shard {parsed.shard}" if parsed.shard else ""
        print(f"rank {ranks.rank} of {ranks.world}{by_hand}: {len(mine)} of {len(items)} {kind}")
    return mine


def _alone(what: str) -> None:
    if (world := _ranks().world) > 1:
        raise SalemaError(f"{what} is for one process, not for {world} (start one)")


def _view(parsed: argparse.Namespace) -> int:
    from salema.predict.sources import Output
    from salema.tools.view import DEMO

    source = getattr(parsed, "source", str(DEMO))
    out = parsed.out or Path(f"{Path(source).resolve().stem}.html")
    looks = (parsed.colormap, parsed.opacity, parsed.overwrite, parsed.shot_reset)
    status = _page(_model(parsed), source, out, Output(None, "png", None, "source", *looks))
    if parsed.open and not webbrowser.open(out.resolve().as_uri()):
        print(f"no browser was found; open {out} in one", file=sys.stderr)
    return status


def _page(predictor: "Predictor", source: str, out: Path, output: "Output") -> int:
    from salema.tools import view

    if stopped := view.page(predictor, source, out, output):
        print(f"{source}: {stopped}; the frames before that are in {out}", file=sys.stderr)
        return 1
    print(out)
    return 0


def _predict_dataset(parsed: argparse.Namespace) -> int:
    from salema.predict import load, sources

    clips = _clips(parsed, ground_truth=False)
    if parsed.submission:
        _alone("--submission")
        if parsed.dataset != "DHF1K" or parsed.format != "png":
            raise SalemaError("--submission needs --dataset DHF1K and --format png (change them)")
        absent(parsed.submission)
    predictor = _model(parsed)
    name = parsed.weights.stem if parsed.weights else "salema"
    folder, about = parsed.out or Path("saliency"), load.identity(predictor)
    output = (folder, parsed.format, parsed.overwrite, name, about)
    status = sources.predict_dataset(predictor, _share(parsed, clips, "clips"), *output)
    if parsed.submission:
        sources.submission(folder / f"{name}_predictions", clips, parsed.submission)
        print(f"{parsed.submission}: {len(clips)} videos")
    return status


def _predict_run(parsed: argparse.Namespace) -> Path:
    from salema.predict import sources

    _alone("predict --run")
    return sources.predict_run(_study(parsed), parsed.run)


def _evaluate(parsed: argparse.Namespace) -> int:
    from salema import data
    from salema.score import evaluate, tables
    from salema.score.maps import Maps

    folder, paired = parsed.predictions, parsed.paired
    if not (folder and parsed.dataset):
        raise SalemaError("evaluate what? (name a folder of maps and --dataset)")
    clips = _clips(parsed, ground_truth=True)
    if not folder.is_dir():
        raise SalemaError(f"no such folder of maps: {folder} (check the path)")
    for path in filter(None, (parsed.csv, parsed.frames)):
        absent(path)
    rules = {"protocol": parsed.protocol, "every": parsed.every}
    rules |= {"everyone": data.load(_root(parsed), parsed.dataset), "ranks": _ranks(parsed)}
    table, here = None, rules["ranks"]
    if not here.part(clips):
        raise SalemaError(f"no clip in --shard {parsed.shard} of {len(clips)} (take fewer shards)")
    if paired and not paired.is_dir():
        table = tables.read_scores(paired, [clip.name for clip in clips], parsed.protocol)
    leaks = {"seen": tables.seen_by(parsed.weights, folder), "allow_seen": parsed.allow_seen}
    with here.connected():
        scores = evaluate.score_clips(clips, Maps(folder), **rules, **leaks)
        if paired and not table:
            table = tables.rows(evaluate.score_clips(clips, Maps(paired), **rules))
    if here.rank:  # rank 0 reports
        return 0
    means = evaluate.summary(scores, parsed.protocol)
    print(evaluate.table(means, f"{clips[0].dataset}, {parsed.protocol}"))
    if parsed.csv:
        tables.write_scores(scores, parsed.csv)
    if parsed.frames:
        tables.write_frames(scores, parsed.frames)
    if paired:
        groups = {clip.name: clip.group for clip in clips}
        print(evaluate.differences(tables.rows(scores), table, groups, parsed.margin))
    return 0


def _evaluate_run(parsed: argparse.Namespace) -> int:
    from salema.score import evaluate

    _alone("evaluate --run")
    evaluate.evaluate_run(_study(parsed), parsed.run, parsed.allow_seen)
    return 0


def _controls(parsed: argparse.Namespace) -> Path:
    from salema.score.controls import write_controls

    if not (parsed.predictions and parsed.dataset and parsed.out):
        raise SalemaError("controls of what? (name a folder of maps, --dataset and --out)")
    clips = _clips(parsed, ground_truth=False)
    return write_controls(clips, parsed.predictions, parsed.out, parsed.tau)


def _crossvalidate(parsed: argparse.Namespace) -> Path:
    from salema.tools import crossvalidate

    return crossvalidate.crossvalidate(_study(parsed))


def _convert(parsed: argparse.Namespace) -> Path:
    from salema.predict import load

    placed = parsed.placement, parsed.alpha, parsed.half, parsed.static, parsed.fps
    return load.convert(parsed.old, parsed.new, *placed)


def _export(parsed: argparse.Namespace) -> Path:
    from salema.predict import load
    from salema.tools import export

    placed = parsed.placement, parsed.alpha, parsed.sha256, parsed.static
    network, card = load.read(parsed.weights, *placed)
    return export.export(network, parsed.out, card)


def _doctor(parsed: argparse.Namespace) -> int:
    from salema.tools import doctor

    return doctor.report()


def _index(parsed: argparse.Namespace) -> int | Path:
    from salema.data import manifest

    settings = _study(parsed)
    index = manifest.check if parsed.check else manifest.write
    return index(parsed.root or settings.root, settings)


def _tune(parsed: argparse.Namespace) -> Path:
    from salema.train import loop

    return loop.tune(_study(parsed), parsed.run)


def _finetune(parsed: argparse.Namespace) -> Path:
    from salema.train import loop

    return loop.finetune(_study(parsed), parsed.run, parsed.init, parsed.dataset)


def _protocols(parsed: argparse.Namespace) -> Path:
    from salema.score import evaluate

    return evaluate.compare_protocols(_study(parsed), parsed.run)


def _report(parsed: argparse.Namespace) -> Path:
    from salema.report.execute import execute

    return execute(parsed.notebook, _study(parsed), parsed.local)


def _reproduced(parsed: argparse.Namespace) -> int:
    from salema.report.reproduced import reproduced

    print(reproduced(_study(parsed).report_folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
