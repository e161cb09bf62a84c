"""``python -m ldm_kit.batch``: run a series or a notebook from the command line."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldm_kit.batch.protocol import freeze, read_protocol, summary_lines
from ldm_kit.batch.report import Report, build_report
from ldm_kit.batch.run import Outcome, exit_code, run_series, say

FINDINGS_SHOWN = 5
WIDTH = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of the command line's.

    Returns
    -------
    int
        0 if all went well, 1 if a notebook failed, 2 if the input cannot be used, 130 if the user stopped it.

    Examples
    --------
    >>> main(["notebooks/demo.yaml", "--out", "outputs/demo", "--only", "02*"])  # doctest: +SKIP
    0
    """
    parser = argparse.ArgumentParser(
        prog="python -m ldm_kit.batch",
        description="Run a series of notebooks (YAML), or one, through papermill, and build the report.",
        epilog="Exit code: 0 all went well, 1 a notebook failed, 2 the input cannot be used, 130 stopped by Ctrl-C.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("path", nargs="?", help="a series, e.g. notebooks/demo.yaml, or a notebook")
    what.add_argument("--freeze", metavar="FILE", help="freeze a series that names hypotheses; nothing runs")
    what.add_argument(
        "--protocol", metavar="FILE", help="run a frozen series; the report names each deviation"
    )
    parser.add_argument("--out", help="where results go (default: outputs/NAME)")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter, for each notebook that has it; VALUE is YAML: 3, '[a, b]', null",
    )
    parser.add_argument("--timeout", type=int, metavar="SECONDS", help="how long one cell may take")
    add_choice_of_runs(parser)
    options = vars(parser.parse_args(arguments))
    path, frozen, freezing = options.pop("path"), options.pop("protocol"), options.pop("freeze")
    if freezing:
        if any(options.values()):
            parser.error("--freeze freezes the file as it is: it takes no other option")
        return exit_code(lambda: _freeze(freezing))
    path, options["protocol"] = path or frozen, frozen is not None
    out = Path(options.pop("out") or Path("outputs") / Path(path).stem)
    options["parameters"] = dict(options.pop("parameter"))
    return exit_code(lambda: run_and_report(path, out, **options))


def _freeze(path: str) -> int:
    copy = freeze(path)
    about = read_protocol(path)
    say(f"Frozen on {about['on']} as {copy}:")
    say(f"sha256 {about['sha256']}")
    say(
        "Keep that file with the other, and register the hash where it gets a date, before anything runs. Then:"
    )
    say(f"python -m ldm_kit.batch --protocol {path}")
    return 0


def add_choice_of_runs(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose among the runs of a series."""
    parser.add_argument("--only", metavar="PATTERN", help="only the runs of this name, e.g. '02*'")
    parser.add_argument("--force", action="store_true", help="run what is done already as well")


def run_and_report(path: str | Path, out: Path, **options: Any) -> int:
    """Run a series, build its report, and print what was found; 1 if a notebook failed."""
    outcomes = run_series(path, out, **options)
    report = build_report(out)
    say("")
    say(summary(outcomes, report))
    return int(any(outcome.status == "failed" for outcome in outcomes))


def summary(outcomes: Sequence[Outcome], report: Report) -> str:
    """Summarise in about ten lines what was found, and which file to open.

    Examples
    --------
    >>> print(summary([], Report(Path("outputs/demo/index.html"), "", ["`mid_block` is **most** human: 0.41."])))
    0 notebooks in 0 s.
    What was found:
      - mid_block is most human: 0.41.
    Open outputs/demo/index.html
    """
    seconds = sum(outcome.seconds for outcome in outcomes if outcome.status != "skipped")
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    before = f", {skipped} of them done before" if skipped else ""
    lines = [f"{len(outcomes)} notebooks in {seconds:.0f} s{before}."]
    lines += [f"FAILED {one.name}: {one.error}" for one in outcomes if one.status == "failed"]
    if report.findings:
        lines.append("What was found:")
    for finding in report.findings[:FINDINGS_SHOWN]:
        plain = re.sub(r"\*\*|`", "", finding)
        lines += textwrap.wrap(plain, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    if report.protocol is not None:
        lines += summary_lines(report.protocol)
    if report.advice:
        lines.append(report.advice)
    return "\n".join([*lines, f"Open {report.index}"])


if __name__ == "__main__":
    sys.exit(main())
