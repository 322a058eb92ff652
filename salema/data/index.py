"""What the study finds under its root: the manifest that every stage depends on."""

import json
from pathlib import Path

from salema import data as datasets
from salema.data.sets import SOURCES
from salema.files import SalemaError, atomic
from salema.params import Params


def wanted(params: Params) -> dict[str, list[str]]:
    """Set -> the splits that the profile reads."""
    needs: dict[str, list[str]] = {}
    for name in [*params.data.tune, *params.data.finetune]:
        needs[name] = ["train", "val"]
    for name, split in params.data.evaluate.items():
        needs[name] = list(dict.fromkeys([*needs.get(name, []), split]))
    return needs


def write(root: Path, params: Params) -> Path:
    """Write `runs/<profile>/manifest.json`: names, frames, bytes; no absolute path.

    Raises:
        SalemaError: The study would stumble; the first reason.
    """
    needs = wanted(params)
    missing = [f"{name} ({SOURCES[name]})" for name in needs if not (root / name).is_dir()]
    if missing:
        raise SalemaError(
            f"profile {params.profile}: the folder {root} lacks {', '.join(missing)}; nothing is "
            "trained (put them there, or set data.root or SALEMA_DATA to where they are)"
        )
    manifest, _ = datasets.scan(root, needs)
    for reason in datasets.stumbles(manifest):
        raise SalemaError(f"profile {params.profile} cannot run in {root}: {reason} (--check)")
    path = Path("runs") / params.profile / "manifest.json"
    with atomic(path) as part:
        part.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def check(root: Path, params: Params) -> int:
    """Print the table of what is there; 1 when the study would stumble."""
    manifest, problems = datasets.scan(root, wanted(params), deep=True)
    print(datasets.table(manifest, problems))
    reasons = datasets.stumbles(manifest)
    for reason in reasons:
        print(f"the study would stumble: {reason}")
    return 1 if reasons else 0
