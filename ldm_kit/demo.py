"""``python -m ldm_kit.demo``: the notebook series on the bundled world, and what it found in ten lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldm_kit.batch.__main__ import add_choice_of_runs, run_and_report
from ldm_kit.batch.run import exit_code
from ldm_kit.files import find_notebook


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of the command line's.

    Returns
    -------
    int
        0 if all went well, 1 if a notebook failed, 2 if it cannot start, 130 if the user stopped it.

    Examples
    --------
    >>> main(["--out", "outputs/demo"])  # doctest: +SKIP
    0
    """
    parser = argparse.ArgumentParser(
        prog="python -m ldm_kit.demo", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--out", default="outputs/demo", help="where results go (default: %(default)s)")
    add_choice_of_runs(parser)
    options = vars(parser.parse_args(arguments))
    return exit_code(lambda: _run(Path(options.pop("out")), **options))


def _run(out: Path, **options: Any) -> int:
    from ldm_kit.models.hub import folder_digest
    from ldm_kit.models.registry import packaged

    # The bundled model may change with the package. Its features lie under its revision, so that nobody's are
    # in the way of others or have to be deleted; noise samples lie apart now, which they did not in earlier stores.
    revision = folder_digest(packaged("tiny-ldm")).rpartition(":")[2][:8]
    series = find_notebook("demo.yaml", "Run the demo from a clone of it.")
    return run_and_report(series, out, parameters={"features": f"{{out}}/samples-{revision}"}, **options)


if __name__ == "__main__":
    sys.exit(main())
