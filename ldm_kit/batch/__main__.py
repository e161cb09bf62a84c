"""``python -m ldm_kit.batch``: run a series or a notebook from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ldm_kit.batch.report import build_report
from ldm_kit.batch.runner import Outcome, exit_code, run_series, say


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
    given = _parser().parse_args(arguments)
    out = Path(given.out or Path("outputs") / Path(given.path).stem)
    options = {"parameters": dict(given.parameter), "only": given.only}
    options |= {"force": given.force, "timeout": given.timeout}
    return exit_code(lambda: run_and_report(given.path, out, **options))


def run_and_report(path: str | Path, out: Path, **options: object) -> int:
    """Run a series, build its report, and say in a table how it went.

    Examples
    --------
    >>> run_and_report("notebooks/demo.yaml", Path("outputs/demo"))  # doctest: +SKIP
    0
    """
    outcomes = run_series(path, out, **options)  # type: ignore[arg-type]
    report = build_report(out)
    say("")
    say(summary(outcomes))
    if report.advice:
        say(report.advice)
    say(f"report: {report.index}")
    return int(any(outcome.status == "failed" for outcome in outcomes))


def summary(outcomes: Sequence[Outcome]) -> str:
    """Tell in a table how the runs ended.

    Examples
    --------
    >>> print(summary([Outcome("02_probing", "done", 31.24, Path("outputs/demo/02_probing"))]))
    run         status   seconds
    02_probing  done          31
    """
    width = max([3, *(len(outcome.name) for outcome in outcomes)])
    lines = [f"{'run':<{width}}  {'status':<7}  seconds"]
    for outcome in outcomes:
        error = f"  {outcome.error}" if outcome.error else ""
        lines.append(f"{outcome.name:<{width}}  {outcome.status:<7}  {outcome.seconds:7.0f}{error}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ldm_kit.batch",
        description="Run a series of notebooks (YAML), or one, through papermill, and build the report.",
        epilog="Exit code: 0 all went well, 1 a notebook failed, 2 the input cannot be used, 130 stopped by Ctrl-C.",
    )
    parser.add_argument("path", help="a series, e.g. notebooks/demo.yaml, or a notebook")
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
    parser.add_argument("--only", metavar="PATTERN", help="only the runs of this name, e.g. '02*'")
    parser.add_argument("--force", action="store_true", help="run what is done already as well")
    parser.add_argument("--timeout", type=int, metavar="SECONDS", help="how long one cell may take")
    return parser


if __name__ == "__main__":
    sys.exit(main())
