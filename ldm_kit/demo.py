"""``python -m ldm_kit.demo``: the notebook series on the bundled world, and what it found in ten lines."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ldm_kit.batch.report import Report, build_report
from ldm_kit.batch.runner import Outcome, exit_code, run_series, say
from ldm_kit.checkout import find_notebook

FINDINGS_TOLD = 5
WIDTH = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of the command line's.

    Returns
    -------
    int
        0 if all went well, 1 if a notebook failed, 2 if it cannot start.

    Examples
    --------
    >>> main(["--out", "outputs/demo"])  # doctest: +SKIP
    0
    """
    parser = argparse.ArgumentParser(
        prog="python -m ldm_kit.demo", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", default="outputs/demo", help="where results go (default: %(default)s)")
    parser.add_argument("--only", metavar="PATTERN", help="only the notebooks of this name, e.g. '02*'")
    parser.add_argument("--force", action="store_true", help="run what is done already as well")
    given = parser.parse_args(arguments)
    return exit_code(lambda: _run(Path(given.out), given.only, given.force))


def _run(out: Path, only: str | None, force: bool) -> int:
    from ldm_kit.models.hub import folder_digest
    from ldm_kit.models.registry import packaged

    # The bundled model may change with the package. Its features lie under its revision, so that nobody's are
    # in the way of others or have to be deleted.
    revision = folder_digest(packaged("tiny-ldm")).rpartition(":")[2][:8]
    outcomes = run_series(
        find_notebook("demo.yaml", "Run the demo from a clone of it."),
        out,
        parameters={"features": f"{{out}}/features-{revision}"},
        only=only,
        force=force,
    )
    report = build_report(out)
    say("")
    say(told(outcomes, report))
    return int(any(outcome.status == "failed" for outcome in outcomes))


def told(outcomes: Sequence[Outcome], report: Report) -> str:
    """Tell in about ten lines what was found, and which file to open.

    Parameters
    ----------
    outcomes : sequence of Outcome
    report : Report

    Returns
    -------
    str

    Examples
    --------
    >>> print(told([], Report(Path("outputs/demo/index.html"), "", ["`mid_block` is **most** human: 0.41."])))
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
    for finding in report.findings[:FINDINGS_TOLD]:
        plain = re.sub(r"\*\*|`", "", finding)
        lines += textwrap.wrap(plain, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    if report.advice:
        lines.append(report.advice)
    lines.append(f"Open {report.index}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
