"""A frozen protocol and its deviations, and the reporting checklist, without kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_markdown_cell, new_output

import ldm_kit
from ldm_kit.batch import build_report, freeze, run_series
from ldm_kit.batch.__main__ import main
from ldm_kit.batch.checklist import NOT_TOLD, checklist
from ldm_kit.errors import BadInputError, UnknownNameError
from ldm_kit.files import write_text
from tests.quick_batch import run_here

PARAMETERS = "seed: int = 0\nlevels: list[float] = [0.1]\nout: str = ''"
RECORDS = """
import pandas as pd
from ldm_kit.run_record import RunRecord
results = RunRecord(out)
results.record(judgements="simulated")
results.table(pd.DataFrame({"seed": [seed, 7], "judgements": "simulated"}), "gains", caption="Gains <b>")
results.finding(f"The gain is **{seed}** <script>.", name="gain")
results.finding("A finding without a name.")
"""
PROTOCOL = {
    "defaults": {"seed": 3},
    "runs": [{"notebook": "a.ipynb"}, {"notebook": "b.ipynb", "parameters": {"levels": [0.5]}}],
    "hypotheses": [
        {"name": "h1", "statement": "The label adds <i>.", "run": "a", "finding": "gain", "margin": 0.01},
        {"name": "h2", "statement": "So it does in b.", "run": "b", "table": "gains"},
    ],
    "exclusions": ["Images without a label <u>."],
}
pytestmark = pytest.mark.slow
Change = Callable[[Path, dict[str, Any]], object]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("papermill.execute_notebook", run_here)
    monkeypatch.setattr("ldm_kit.run_record.find_browser", lambda: None)
    monkeypatch.setattr(
        "ldm_kit.batch.report.write_page", lambda notebook, target, **_: write_text(target, "")
    )


@pytest.fixture
def protocol(make_notebook: Callable[..., Path], tmp_path: Path) -> Path:
    """Write a protocol of two runs; not frozen yet."""
    for name in "ab":
        make_notebook(name, RECORDS, parameters=PARAMETERS)
    return save(tmp_path / "p.yaml", PROTOCOL)


def save(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = yaml.safe_load(path.read_text())
    change(content)
    save(path, content)


def edit_cell(notebook: Path, change: Callable[[Any], object]) -> None:
    read = nbformat.read(notebook, as_version=4)
    change(read)
    nbformat.write(read, notebook)


def hash_of(path: Path) -> str:
    """Freeze a protocol anew, and return its hash."""
    path.with_name("p.frozen.json").unlink(missing_ok=True)
    return str(json.loads(freeze(path).read_text())["sha256"])


def deviations(out: Path) -> list[str]:
    report = build_report(out)
    assert report.protocol is not None
    found: list[str] = report.protocol["deviations"]
    page = report.index.read_text()
    assert ("None: what ran is what was frozen" in page) == (not found)
    return found


# --- freezing


def test_the_hash_is_of_what_is_run_and_asked_and_of_nothing_else(protocol: Path, tmp_path: Path) -> None:
    whole = hash_of(protocol)
    save(protocol, dict(reversed(PROTOCOL.items())))
    edit(protocol, lambda content: content.update(registered={"date": "2030-01-01", "where": "a register"}))
    edit_cell(tmp_path / "a.ipynb", lambda read: read.cells.append(new_markdown_cell("A note.")))
    edit_cell(tmp_path / "a.ipynb", lambda read: read.cells[0].outputs.append(new_output("stream", text="3")))
    assert hash_of(protocol) == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda path: edit(path, lambda content: content["defaults"].update(seed=4)),
        lambda path: edit(path, lambda content: content["hypotheses"][0].update(margin=0.02)),
        lambda path: edit(path, lambda content: content["exclusions"].append("More.")),
        lambda path: edit_cell(path.with_name("b.ipynb"), lambda read: read.cells[1].update(source="1")),
    ],
    ids=["a parameter", "a margin", "an exclusion", "a notebook"],
)
def test_another_protocol_has_another_hash_and_is_not_frozen_over_the_first(
    protocol: Path, change: Callable[[Path], object]
) -> None:
    copy = freeze(protocol)
    before = copy.read_text()
    assert freeze(protocol).read_text() == before  # the same one, the same day
    change(protocol)
    with pytest.raises(BadInputError, match=r"was frozen on .* is another by now.*--protocol"):
        freeze(protocol)
    assert copy.read_text() == before
    assert hash_of(protocol) != json.loads(before)["sha256"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"hypotheses": []}, BadInputError, "names no `hypotheses:`"),
        ({"hypotheses": [{"name": "h", "statement": "s"}]}, BadInputError, "the run that answers it"),
        (
            {"hypotheses": [{"name": "h", "statement": "s", "run": "a"}]},
            BadInputError,
            "`finding:` or `table:`",
        ),
        (
            {"hypotheses": [{"name": "h", "statement": "s", "run": "a", "finding": "x", "table": "y"}]},
            BadInputError,
            "either `finding:` or `table:`",
        ),
        (
            {"hypotheses": [{"name": "h", "statement": "s", "run": "aa", "finding": "x"}]},
            UnknownNameError,
            "Unknown run of hypothesis 'h'.*'aa'.*Did you mean 'a'",
        ),
        (
            {"hypotheses": [{"name": "h", "statement": "s", "run": "a", "finding": "x", "margn": 1}]},
            UnknownNameError,
            "'margn'.*Did you mean 'margin'",
        ),
        (
            {"hypotheses": [{"name": "h", "statement": "s", "run": "a", "finding": "x", "margin": "wide"}]},
            BadInputError,
            "margin",
        ),
        ({"hypotheses": [PROTOCOL["hypotheses"][0]] * 2}, BadInputError, "two hypotheses are called 'h1'"),
        ({"exclusions": [5]}, BadInputError, "exclusion 5 must be text"),
        ({"registered": {"at": "x"}}, UnknownNameError, "Unknown key.*'at'"),
    ],
)
def test_a_protocol_that_cannot_be_used_says_why(
    protocol: Path, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    save(protocol, {**PROTOCOL, **change})
    with pytest.raises(error, match=says):
        freeze(protocol)
    assert not protocol.with_name("p.frozen.json").exists()


def test_the_command_line_freezes_and_tells_the_hash(
    protocol: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--protocol", str(protocol), "--out", str(tmp_path / "out")]) == 2
    assert f"is not frozen.*--freeze {protocol}".split(".*")[1] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["--freeze", str(protocol)]) == 0
    told = capsys.readouterr().out
    assert json.loads((tmp_path / "p.frozen.json").read_text())["sha256"] in told
    assert main(["--protocol", str(protocol), "--out", str(tmp_path / "out"), "-p", "seed", "9"]) == 0
    told = capsys.readouterr().out
    assert "1 deviation.\n  - Every run: parameter seed: 3 → 9, on the command line" in told
    for more in (["--only", "a"], ["-p", "seed", "1"], [str(protocol)]):
        with pytest.raises(SystemExit):
            main(["--freeze", str(protocol), *more])


def test_an_altered_or_damaged_copy_is_refused(protocol: Path, tmp_path: Path) -> None:
    copy = freeze(protocol)
    frozen = json.loads(copy.read_text())
    frozen["content"]["hypotheses"][0]["statement"] = "What was found."
    for text, says in (
        (json.dumps(frozen), "was altered"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ):
        copy.write_text(text)
        with pytest.raises(BadInputError, match=says):
            run_series(protocol, tmp_path / "out", protocol=True)
    assert not (tmp_path / "out").exists()


# --- what the report says


def test_without_a_deviation_the_report_says_so_and_answers_each_hypothesis(
    protocol: Path, tmp_path: Path
) -> None:
    digest = hash_of(protocol)
    run_series(protocol, tmp_path / "out", protocol=True)
    assert deviations(tmp_path / "out") == []
    page = (tmp_path / "out" / "index.html").read_text()
    section = page.partition('id="protocol"')[2].partition("</section>")[0]
    for told in (
        digest,
        "The label adds &lt;i&gt;.",
        "Margin: 0.01",
        "The gain is <strong>3</strong> &lt;script&gt;.",
        "Gains &lt;b&gt; (2 rows)",
        "Images without a label &lt;u&gt;.",
    ):
        assert told in section
    assert page.count("by the protocol: Images without a label &lt;u&gt;.") == 2  # in each run's checklist
    run_series(protocol, tmp_path / "out")  # as any series: nothing is claimed
    assert build_report(tmp_path / "out").protocol is None
    assert 'id="protocol"' not in (tmp_path / "out" / "index.html").read_text()


DEVIATIONS: dict[str, tuple[Change, list[str]]] = {
    "the file": (
        lambda path, options: edit(path, lambda content: content["defaults"].update(seed=4)),
        ["The protocol's file: defaults › seed: 3 → 4", "Every run: parameter seed: 3 → 4"],
    ),
    "a hypothesis": (
        lambda path, options: edit(
            path, lambda content: content["hypotheses"][1].update(statement="Not in b.")
        ),
        ['The protocol\'s file: hypotheses › h2 › statement: "So it does in b." → "Not in b."'],
    ),
    "a hypothesis more": (
        lambda path, options: edit(
            path,
            lambda content: content["hypotheses"].insert(
                0, {"name": "h0", "statement": "s", "run": "a", "finding": "x"}
            ),
        ),
        [
            "The protocol's file: hypotheses › h0: not set → "
            '{"name": "h0", "statement": "s", "run": "a", "finding": "x"}'
        ],
    ),
    "a run more": (
        lambda path, options: edit(
            path, lambda content: content["runs"].append({"notebook": "a.ipynb", "name": "c"})
        ),
        [
            'The protocol\'s file: runs › c: not set → {"notebook": "a.ipynb", "name": "c"}',
            "c: not part of the frozen protocol",
        ],
    ),
    "the command line": (
        lambda path, options: options.update(parameters={"levels": [0.9]}),
        [
            "a: parameter levels: not set → [0.9], on the command line",
            "b: parameter levels: [0.5] → [0.9], on the command line",
        ],
    ),
    "a notebook": (
        lambda path, options: edit_cell(
            path.with_name("b.ipynb"), lambda read: read.cells[1].update(source=f"{RECORDS}# another")
        ),
        ["b: the code of b.ipynb changed"],
    ),
    "a failure": (
        lambda path, options: edit_cell(
            path.with_name("a.ipynb"), lambda read: read.cells[1].update(source="1 / 0")
        ),
        [
            "a: failed: ZeroDivisionError: division by zero",
            "a: the code of a.ipynb changed",
            "Hypothesis h1 has no answer: a recorded no finding 'gain'",
        ],
    ),
    "a run left out": (
        lambda path, options: options.update(only="a"),
        ["b: did not run", "Hypothesis h2 has no answer: b did not run"],
    ),
    "no such finding": (
        lambda path, options: edit_cell(
            path.with_name("a.ipynb"),
            lambda read: read.cells[1].update(source=RECORDS.replace('name="gain"', 'name="gains"')),
        ),
        [
            "a: the code of a.ipynb changed",
            "Hypothesis h1 has no answer: a recorded no finding 'gain'; its findings: gains",
        ],
    ),
    "the hash that was registered": (
        lambda path, options: edit(path, lambda content: content.update(registered={"sha256": "abc"})),
        ["The hash that was registered is abc; that of the frozen copy is another"],
    ),
}


@pytest.mark.parametrize("what", DEVIATIONS)
def test_every_deviation_is_named_with_what_was_and_is(protocol: Path, tmp_path: Path, what: str) -> None:
    freeze(protocol)
    change, named = DEVIATIONS[what]
    options: dict[str, Any] = {}
    change(protocol, options)
    run_series(protocol, tmp_path / "out", protocol=True, **options)
    assert deviations(tmp_path / "out") == named


def test_another_ldm_kit_is_named(protocol: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(protocol)
    now = ldm_kit.__version__
    digests = ldm_kit.batch.run.code_digests
    monkeypatch.setattr("ldm_kit.batch.run.code_digests", lambda path: digests(path) | {"ldm_kit": "other"})
    run_series(protocol, tmp_path / "out", protocol=True)
    assert deviations(tmp_path / "out") == [
        f"Every run: the code of ldm_kit changed (its version, {now}, did not)"
    ]
    monkeypatch.setattr("ldm_kit.batch.run.code_digests", lambda path: digests(path) | {"version": "9.9"})
    run_series(protocol, tmp_path / "out", protocol=True, force=True)
    assert deviations(tmp_path / "out") == [f"Every run: ldm_kit {now} → 9.9"]


def test_what_ran_before_it_was_frozen_is_named_until_it_runs_again(protocol: Path, tmp_path: Path) -> None:
    run_series(protocol, tmp_path / "out")
    state = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    write_text(
        tmp_path / "out" / "a" / "run.json", json.dumps(state | {"started": "2020-01-01T00:00:00+00:00"})
    )
    freeze(protocol)
    run_series(protocol, tmp_path / "out", protocol=True)
    assert "a: run on 2020-01-01T00:00:00+00:00, before the protocol was frozen" in deviations(
        tmp_path / "out"
    )
    run_series(protocol, tmp_path / "out", protocol=True, force=True)
    assert deviations(tmp_path / "out") == []


def test_a_damaged_record_is_no_reason_to_claim_no_deviation(protocol: Path, tmp_path: Path) -> None:
    freeze(protocol)
    run_series(protocol, tmp_path / "out", protocol=True)
    series = json.loads((tmp_path / "out" / "series.json").read_text())
    series["protocol"]["content"] = 5
    write_text(tmp_path / "out" / "series.json", json.dumps(series))
    page = build_report(tmp_path / "out").index.read_text()
    assert "no deviation could be named" in page and "None: what ran" not in page


# --- the checklist


def test_the_checklist_tells_what_tables_hold_and_guesses_nothing() -> None:
    cells = pd.DataFrame(
        {
            "judgements": "human",
            "n_objects": [40, 40],
            "n_triplets": [1000, 1200],
            "n_people": [12, 12],
            "n_draws": [4, 4],
            "estimand": "new objects",
            "ceiling_low": [0.6, 0.6],
            "ceiling_high": [0.7, 0.7],
            "ceiling_source": "1,000 sets",
        }
    )
    gains = pd.DataFrame({"judgements": ["human"] * 2, "n_compared": [8, None], "correction": ["holm", ""]})
    one = pd.DataFrame({"n_compared": [1, 1], "not_finite": [0, 2], "ceiling_low": "x", "ceiling_high": None})
    told = checklist({"cells": cells, "gains": gains, "one": one}, {"exclusions": ["a <b>"]}, ["c"])
    assert told == {
        "judgements": "human (cells, gains)",
        "objects judged": "40 objects (cells)",
        "choices": "1,000 to 1,200 (cells)",
        "people": "12 (cells); not told (gains)",
        "noise samples": "4 combined by an estimate (cells)",
        "intervals hold for": "new objects (cells)",
        "correction": "for 8 comparisons, holm (gains); 2 comparisons, not corrected (one)",
        "noise ceiling": "0.600 to 0.700, source: 1,000 sets (cells)",
        "exclusions": "by the protocol: c; recorded: a <b>; "
        "images with activations that are not finite: 0 to 2 (one)",
    }


def test_what_every_table_says_is_said_once() -> None:
    tables = {name: pd.DataFrame({"estimand": ["new objects"], "n_compared": [3]}) for name in "ab"}
    told = checklist(tables, {})
    assert told["intervals hold for"] == "new objects (every table)"
    assert told["correction"] == "for 3 comparisons, method not told (every table)"


def test_without_tables_the_checklist_tells_what_was_recorded_or_that_nothing_was() -> None:
    assert set(checklist({}, {}).values()) == {NOT_TOLD}
    assert checklist({}, {"judgements": "simulated"})["people"] == "none: simulated observers"
    assert checklist({}, {"judgements": "human"})["people"] == NOT_TOLD
    told = checklist({}, {"judgements": "human", "n_people": 7, "n_objects": 5})
    assert told["people"] == "7" and told["objects judged"] == "5 objects"
