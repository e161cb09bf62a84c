"""What attacks on the kit leave behind: ``python -m tests.benchmarks.endurance [NAME ...] [--quick]``.

Each attack prints how often it was made and what went wrong; nothing should. Kills are SIGKILL, so that no clean-up runs.
The suite makes the same attacks with fewer repeats. `--quick` makes a tenth of them.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ldm_kit as lk
from ldm_kit.errors import BadInputError
from tests.benchmarks import visitors
from tests.browser.servers import ROOT
from tests.children import Sums, digest, drawn_stimuli, extract_in_child, moves_counted
from tests.mutations import broken_triplets, mutated_images, outcome_of_image, outcome_of_triplets
from tests.test_offline import ENTRY_POINTS, a_network_of_its_own, asked_by
from tests.tiny_models import save_tiny_stable_diffusion

# (attack, how often, what came of it)
Row = tuple[str, str, str]


def store_at_every_move(folder: Path, share: float) -> Iterator[Row]:
    """Kill an extraction before each of its file moves, or fill the disk there; then extract again."""
    grid = {"blocks": ["a", "b", "c"], "noise_levels": [0.1, 0.5], "conditionings": ["none", "label"]}
    half = {**grid, "blocks": ["a"], "noise_levels": [0.5]}
    for what, start in (("created", None), ("grown", half)):
        before, after = folder / f"{what}-before", folder / f"{what}-after"
        if start:
            _extract(before, 20, start)
            shutil.copytree(before, after)
        with moves_counted() as moves:
            _extract(after, 70, grid)
        places = range(1, moves.count + 1, max(1, round(1 / share)))
        for how in ("killed", "disk full"):
            wrong = 0
            for at in places:
                out = folder / f"{what}-{how}-{at}"
                if start:
                    shutil.copytree(before, out)
                if how == "killed":
                    assert extract_in_child(
                        None, drawn_stimuli(70), out, kill_at_move=at, **grid
                    ).was_killed()
                else:
                    with moves_counted(at, errno.ENOSPC):
                        try:
                            _extract(out, 70, grid)
                        except BadInputError:
                            pass
                        else:
                            wrong += 1
                cells = len(_extract(out, 70, grid).cells())
                wrong += cells != 12 or digest(out) != digest(after)
                shutil.rmtree(out)
            yield f"a store is {what}, {how} at every file move", f"{len(places)} moves", _wrong(wrong)


def _extract(out: Path, n: int, grid: dict[str, Any]) -> lk.FeatureStore:
    return lk.extract(Sums.opened(), drawn_stimuli(n), out=out, progress=False, **grid)


def store_at_random(folder: Path, share: float) -> Iterator[Row]:
    """Kill extractions of a small Stable Diffusion at random instants, several times each, until they end."""
    model, rng = save_tiny_stable_diffusion(folder / "model"), random.Random(0)
    stimuli, grid = drawn_stimuli(70), {"noise_levels": [0.1, 0.5], "conditionings": ["none", "label"]}
    took = extract_in_child(model, stimuli, folder / "whole", **grid).finish()
    runs, kills, wrong = max(2, round(50 * share)), 0, 0
    for run in range(runs):
        out = folder / f"random-{run}"
        for _ in range(rng.randint(1, 3)):
            if not extract_in_child(model, stimuli, out, **grid).kill(rng.uniform(0, 0.6 * took)):
                break
            kills += 1
        extract_in_child(model, stimuli, out, **grid).finish()
        wrong += digest(out) != digest(folder / "whole")
        shutil.rmtree(out)
    yield "a store, killed at random instants", f"{kills} kills in {runs} extractions", _wrong(wrong)


def batch_at_every_move(folder: Path, share: float) -> Iterator[Row]:
    """Kill a series before each file move of the runner, the report and the notebooks; then run it again."""
    command = [sys.executable, "-m", "tests.quick_batch", str(folder), f"--runs={1 if share < 1 else 2}"]
    told = subprocess.run([*command, "--notebooks-too"], cwd=ROOT, capture_output=True, text=True, check=True)
    kills = [json.loads(line) for line in told.stdout.splitlines()]
    yield (
        "a batch, new or run again with another seed, killed at every file move",
        f"{len(kills)} moves",
        _wrong(sum(bool(kill["wrong"]) for kill in kills)),
    )


def game_at_random(folder: Path, share: float) -> Iterator[Row]:
    """Kill the served game at random instants while players answer."""
    found = visitors.kills(max(5, round(60 * share)), folder=folder)
    yield (
        "the served game, killed at random instants",
        f"{found['kills']} kills, {found['answers']:,} answers",
        f"{found['lost']} lost, {found['refused']} refused",
    )


def images(folder: Path, share: float) -> Iterator[Row]:
    """Damage photographs: each opens as what it is, or is refused by name."""
    things = Path(os.environ.get("LDM_KIT_THINGS", ROOT.parent / "shared" / "things"))
    photographs = sorted((things / "object_images_CC0").glob("*.jpg"))
    outcomes = Counter(
        outcome_of_image(path) for path in mutated_images(photographs, folder, round(3366 * share))
    )
    yield "mutated images", f"{outcomes.total():,}", _outcomes(outcomes)


def triplets(folder: Path, share: float) -> Iterator[Row]:
    """Break files of triplets: each is read as what it means, or is refused by name."""
    outcomes: Counter[str] = Counter()
    for _what, name, content, meant in broken_triplets():
        (folder / name).write_bytes(content)
        outcomes[outcome_of_triplets(folder / name, meant)] += 1
    yield "broken files of triplets", f"{outcomes.total()} forms", _outcomes(outcomes)


def class_of_30(folder: Path, share: float) -> Iterator[Row]:
    """Serve the game to 30 visitors at once, each of whom plays five trials."""
    found = visitors.measure(30)
    yield (
        "visitors of the served game at once",
        f"{found['visitors']:.0f}",
        f"{found['processes']:.0f} process, {found['MiB before']:.0f} MiB before, {found['MiB a visitor']:.2f} MiB a visitor; "
        f"first trial after {found['median seconds to the first trial']:.2f} s (median), {found['longest']:.2f} s (longest)",
    )


def sockets(folder: Path, share: float) -> Iterator[Row]:
    """Do with the offline switch on what could ask the network, in children and a browser as well."""
    asked = asked_by(list(ENTRY_POINTS), folder)
    where = "a network namespace without routes" if a_network_of_its_own() else "a watch in every Python"
    yield (
        f"offline, in {where}: {'; '.join(ENTRY_POINTS)}",
        f"{len(ENTRY_POINTS)} entry points",
        f"{len(asked)} look-ups or connections",
    )


def _wrong(n: int) -> str:
    return f"{n} wrong"


def _outcomes(outcomes: Counter[str]) -> str:
    return ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items())) + ", 0 otherwise"


ATTACKS: dict[str, Callable[[Path, float], Iterator[Row]]] = {
    "store": store_at_every_move,
    "store-random": store_at_random,
    "batch": batch_at_every_move,
    "game": game_at_random,
    "images": images,
    "triplets": triplets,
    "visitors": class_of_30,
    "sockets": sockets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which attacks; all by default: {', '.join(ATTACKS)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repeats")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ATTACKS):
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    print("| attack | how often | what came of it |\n|---|---|---|")
    for name in given.names or ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            for row in ATTACKS[name](Path(folder), 0.1 if given.quick else 1.0):
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
