"""The report: tables, figures, executed notebooks.

Nothing here trains or scores: it reads what the stages left in `runs/<profile>/` and
`reports/<profile>/`. Read in this order:

    style       one look for all figures, the same bytes on every run
    study       one profile: its parameters, and what the stages left, as tidy tables
    words       numbers as text: a cell, a Markdown table, the answers to the questions
    tables      the tables of the report; `ablation.md`, `ablation.csv` and `bars.csv`
    charts      figures of numbers
    arms        the two arms: contrasts, tests and tables; `arms.md`
    arm_charts  figures of the two arms
    maps        figures of maps, with their frames and the observers' maps
    reproduced  whether the scores are the committed ones
    execute     a notebook as .ipynb and .html, the same bytes on every run
"""
