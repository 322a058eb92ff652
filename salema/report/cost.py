"""What each row costs: parameters, arithmetic a frame, milliseconds where they were measured."""

import json
from functools import cache

import pandas as pd

from salema.params import Model, Params, Placement


def costs(params: Params) -> pd.DataFrame:
    """A row a run: millions of parameters, GFLOP a frame, ms a frame.

    GFLOP are counted, not measured: one frame through the network after the first, so
    that a memory has something to remember; a multiply and an add count as two. Times
    differ from run to run, so they come from `reports/<profile>/speed.json` where
    `python -m benchmarks.rows` has left it, else a dash.
    """
    times = _speed(params).get("ms", {})
    rows = {}
    for run in params.runs:
        placement = params.placements.get(run) or Placement(recurrence="none")
        parameters, flop = _count(params.model.model_dump_json(), placement.model_dump_json())
        rows[run] = {
            "M parameters": f"{parameters / 1e6:.2f}",
            "GFLOP a frame": f"{flop / 1e9:.2f}",
            "ms a frame": f"{times[run]:.1f}" if run in times else "–",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def measured_on(params: Params) -> str:
    """The machine of the milliseconds, as a sentence; "" where nothing was measured."""
    told = _speed(params).get("machine")
    if not told:
        return ""
    units = ", ".join(told["capabilities"])
    return (
        f"ms a frame: median of {told['rounds']} rounds, rows in turn, in {told['precision']} on "
        f"{told.get('gpu', told['cpu'])} ({units}), {told['threads']} threads, torch "
        f"{told['torch']}.\n"
    )


def _speed(params: Params) -> dict:
    path = params.report_folder / "speed.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@cache
def _count(model: str, placement: str) -> tuple[int, int]:
    """Parameters and FLOP a frame of a network, from shapes alone: nothing is computed."""
    import torch
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from salema.model.network import SaliencyModel

    config = Model.model_validate_json(model)
    with FakeTensorMode(), torch.no_grad():
        network = SaliencyModel(config, Placement.model_validate_json(placement)).eval()
        frame = torch.zeros((1, 1, *config.size, 3), dtype=torch.uint8)
        _, state = network(frame, None)
        with FlopCounterMode(display=False) as counter:
            network(frame, state)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()
