"""Run notebooks headless: one, or a series from a YAML file; each run ends in a one-page report."""

from ldm_kit.batch.protocol import freeze
from ldm_kit.batch.report import build_report
from ldm_kit.batch.run import Outcome, run_notebook, run_series
from ldm_kit.batch.series import Run, Series, read_parameters, read_series

__all__ = [
    "Outcome",
    "Run",
    "Series",
    "build_report",
    "freeze",
    "read_parameters",
    "read_series",
    "run_notebook",
    "run_series",
]
