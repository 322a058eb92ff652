"""The report: tables, figures, executed notebooks.

Nothing here trains or scores; it reads what the stages left in `runs/<profile>/` and
`reports/<profile>/metrics/`. Read in this order:

    style       one look for all figures, the same bytes on every run
    scores      the metrics' files -> tidy tables, paired differences
    published   the authors' tables, and which of them may be compared with
    answers     what the paired differences say in words
    cost        parameters and arithmetic of each row
    tables      the ablation as Markdown and CSV
    clips       maps of a run and of the observers, beside their frames
    data        what is in the data, as tables
    charts      figures of numbers
    maps        figures of maps
    execute     a notebook -> .ipynb and .html, the same bytes on every run
"""

from salema.report.answers import answers
from salema.report.charts import (
    alpha_curves,
    clip_grid,
    loss_curves,
    paired_dots,
    response,
    score_dots,
)
from salema.report.clips import choose_clips, flicker, memory_frames
from salema.report.cost import costs
from salema.report.data import data_table, mean_maps, observers_table
from salema.report.execute import execute
from salema.report.maps import compare_maps, examples, filmstrip, mean_map_grid, slices
from salema.report.published import published
from salema.report.scores import (
    ablation,
    paired,
    per_clip,
    protocols_table,
    study,
    summary,
    time_constant,
)
from salema.report.style import keep
from salema.report.tables import legend, markdown, memories, notice, section, text, write

__all__ = [
    "ablation",
    "alpha_curves",
    "answers",
    "choose_clips",
    "clip_grid",
    "compare_maps",
    "costs",
    "data_table",
    "examples",
    "execute",
    "filmstrip",
    "flicker",
    "keep",
    "legend",
    "loss_curves",
    "markdown",
    "mean_map_grid",
    "mean_maps",
    "memories",
    "memory_frames",
    "notice",
    "observers_table",
    "paired",
    "paired_dots",
    "per_clip",
    "protocols_table",
    "published",
    "response",
    "score_dots",
    "section",
    "slices",
    "study",
    "summary",
    "text",
    "time_constant",
    "write",
]
