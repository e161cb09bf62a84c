"""What a notebook leaves behind."""

from __future__ import annotations

import copy
import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

import ldm_kit.run_record
from ldm_kit.errors import BadInputError
from ldm_kit.measures import compare
from ldm_kit.run_record import HOW_TO_GET_PNGS, SERIES_VARIABLE, Finding, RunRecord, write_pngs
from ldm_kit.tables import tidy


def manifest(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "results.json").read_text())
    return read


def test_tables_figures_and_findings_are_kept_and_given_back(tmp_path: Path) -> None:
    results = RunRecord(tmp_path / "a", question="Which?")
    table = tidy([{"block": "mid_block", "accuracy": 0.4, "judgements": "simulated"}])
    figure = go.Figure(go.Scatter(y=[1, 2]))
    assert results.table(table, "alignment") is table
    assert results.figure(figure, "curves", caption="Up.") is figure
    finding = results.finding("It is **0.400**.", headline=True)
    assert finding == "It is **0.400**." and isinstance(finding, Finding)
    assert "**0.400**" in finding._repr_markdown_()
    results.record(seed=0, model="tiny-ldm")
    results.record(seed=1)

    kept = manifest(tmp_path / "a")
    assert kept["provenance"] == {"seed": 1, "model": "tiny-ldm"}
    assert kept["tables"][0]["judgements"] == ["simulated"]
    assert [entry["text"] for entry in kept["findings"]] == [finding]
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "a/tables/alignment.parquet"), pd.DataFrame(table)
    )
    assert pd.read_csv(tmp_path / "a/tables/alignment.csv")["accuracy"].tolist() == [0.4]
    assert (tmp_path / "a/figures/curves.html").exists()


def compared() -> pd.DataFrame:
    """Two blocks minus a third at nine noise levels, one of them with a hostile name."""
    rng = np.random.default_rng(0)
    triplets = np.array([rng.permutation(20)[:3] for _ in range(300)])
    return pd.concat(
        [
            compare({name: rng.normal(size=(20, 4)) for name in ("<i>down", "up", "mid_block")}, triplets, reference="mid_block")
            .assign(noise_level=level, model="tiny-ldm", dataset="emoji", judgements="simulated")
            for level in np.linspace(0.1, 0.9, 9)
        ],
        ignore_index=True,
    )  # fmt: skip


@pytest.mark.parametrize("which", ["accuracies", "differences"])
def test_a_table_that_is_printed_hides_no_interval(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ({"block": f"up_blocks.{i}", "noise_level": 0.1, "conditioning": c, "model": "tiny-ldm", "accuracy": i / 9,
             "ci_low": i / 10, "ci_high": i / 8, "se": i / 70, "depth": i, "n_ties": i} for i in range(9) for c in "xy")  # fmt: skip
    table, value = (tidy(rows), "accuracy") if which == "accuracies" else (compared(), "difference")
    print(table)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and not any(" ..." in line for line in lines)
    assert lines[0].startswith("In every row: ") and "model tiny-ldm" in " ".join(lines)
    head = next(line for line in lines if value in line).split()
    labels = ["block", "conditioning"] if which == "accuracies" else ["noise_level", "a"]
    assert head[: len(labels) + 3] == [*labels, value, "ci_low", "ci_high"]
    shown = re.findall("<th>([a-z_]+)</th>", table._repr_html_() or "")
    assert shown[: len(labels) + 3] == [*labels, value, "ci_low", "ci_high"] and "model" not in shown


def test_a_table_is_pandas_in_all_else_and_its_names_are_text(tmp_path: Path) -> None:
    table = compared()
    page = table.assign(model="<script>alert(1)</script>")._repr_html_()
    assert page is not None and "<script>" not in page and "&lt;i&gt;down" in page
    assert "model <b>&lt;script&gt;alert(1)&lt;/script&gt;</b>" in page
    plain = pd.DataFrame(table)
    assert repr(table[["a", "difference"]]) == repr(plain[["a", "difference"]])
    assert repr(table.groupby("a")["p"].mean()) == repr(plain.groupby("a")["p"].mean())
    table.to_parquet(tmp_path / "t.parquet")
    for same in (
        plain,
        copy.deepcopy(table),
        pd.concat([table[:3], table[3:]]),
        pd.read_parquet(tmp_path / "t.parquet"),
    ):
        pd.testing.assert_frame_equal(pd.DataFrame(same), plain)
    assert repr(tidy([{"block": "mid_block", "accuracy": 0.4}])).splitlines()[-1].split() == [
        "0",
        "mid_block",
        "0.4",
    ]
    assert "Empty DataFrame" in repr(tidy([]))


def test_the_same_name_replaces_and_keeps_its_place(tmp_path: Path) -> None:
    results = RunRecord(tmp_path)
    for text in ("first", "second", "first"):
        results.finding(text)
    results.finding("0.1", name="best")
    results.finding("0.2", name="best")
    picture = Image.new("RGB", (4, 2))
    for caption in ("old", "new"):
        results.figure(picture, "strip", caption=caption)
    kept = manifest(tmp_path)
    assert [entry["text"] for entry in kept["findings"]] == ["first", "second", "0.2"]
    assert [entry["caption"] for entry in kept["figures"]] == ["new"]
    assert Image.open(tmp_path / "figures/strip.png").size == (4, 2)


def test_a_new_run_reports_nothing_of_the_old(tmp_path: Path) -> None:
    RunRecord(tmp_path).finding("old")
    RunRecord(tmp_path)
    assert manifest(tmp_path)["findings"] == []


def test_figures_load_nothing_from_the_network_and_share_plotly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERIES_VARIABLE, str(tmp_path / "series"))
    for place in ("series/a", "series/b", "alone"):
        RunRecord(tmp_path / place).figure(go.Figure(), "f")
        page = (tmp_path / place / "figures/f.html").read_text()
        library = "../../plotly.min.js" if place != "alone" else "../plotly.min.js"
        assert f'src="{library}"' in page
        assert "://" not in page.split("<body>")[0]
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("plotly.min.js"))] == [
        "alone/plotly.min.js",
        "series/plotly.min.js",
    ]


def test_a_relative_folder_works_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(SERIES_VARIABLE, str(tmp_path / "o"))
    RunRecord("o/a").figure(go.Figure(), "f")
    assert 'src="../../plotly.min.js"' in Path("o/a/figures/f.html").read_text()


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", ".a"])
def test_a_name_that_is_no_file_name_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="cannot name a file"):
        RunRecord(tmp_path).figure(go.Figure(), name)


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    results = RunRecord(tmp_path)
    with pytest.raises(BadInputError, match="plotly Figure or a PIL Image"):
        results.figure([1, 2], "a")
    with pytest.raises(BadInputError, match="not for JSON"):
        results.record(model=object())
    assert manifest(tmp_path)["provenance"] == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="Cannot write"):
        RunRecord(tmp_path / "file")


FULL = [(Path, "write_text"), (Path, "replace"), (pd.DataFrame, "to_parquet"), (Image.Image, "save")]


@pytest.mark.parametrize(("kind", "call"), FULL, ids=lambda one: getattr(one, "__name__", one))
def test_a_full_disk_is_told_and_what_was_there_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, call: str
) -> None:
    def write(value: float) -> list[Any]:
        return [
            lambda: results.table(pd.DataFrame({"a": [value]}), "t"),
            lambda: results.figure(go.Figure(go.Bar(y=[value])), "f"),
            lambda: results.figure(Image.new("L", (2, 2), int(value)), "p"),
            lambda: results.finding(f"It is {value}.", name="it"),
            lambda: results.record(value=value),
        ]

    def full(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    results = RunRecord(tmp_path / "out")
    for one in write(1.0):
        one()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(kind, call, full)
    told = []
    for one in write(2.0):
        try:
            one()
        except BadInputError as error:
            told.append(str(error))
    monkeypatch.undo()
    assert len(told) == (5 if kind is Path else 1)
    assert all("No space left on device" in one and "Free some space" in one for one in told)
    # What has no text, a table's files and an image, is written whole where only texts cannot be.
    written = {"t.parquet", "t.csv", "p.png"} if call == "write_text" else set()
    for path, content in before.items() if kind is Path else ():
        assert path.read_bytes() == content or path.name in written, path.name
    assert not list(tmp_path.rglob("*.partial*"))
    json.loads((tmp_path / "out/results.json").read_text())


def test_without_a_browser_a_line_says_how_to_get_pngs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ldm_kit.run_record, "find_browser", lambda: None)
    results = RunRecord(tmp_path)
    results.figure(go.Figure(), "f")
    assert repr(results.close()) == f"RunRecord({str(tmp_path)!r}: 0 tables, 1 figures, 0 findings)"
    assert HOW_TO_GET_PNGS in caplog.text
    assert not (tmp_path / "figures/f.png").exists()


@pytest.mark.slow
def test_a_browser_that_fails_is_told_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(fake))
    RunRecord(tmp_path).figure(go.Figure(), "f")
    assert "could not draw" in write_pngs([tmp_path / "figures/f.json"])
    assert not list((tmp_path / "figures").glob("*png*"))


@pytest.mark.browser
def test_pngs_are_drawn_once_and_again_when_the_figure_is_newer(tmp_path: Path) -> None:
    results = RunRecord(tmp_path)
    results.figure(go.Figure(layout={"width": 300, "height": 200}), "f")
    results.close()
    png = tmp_path / "figures/f.png"
    assert Image.open(png).size == (600, 400)
    drawn = png.stat().st_mtime_ns
    results.close()
    assert png.stat().st_mtime_ns == drawn


def test_a_table_is_displayed_whatever_it_has_become() -> None:
    table = compared()
    assert "ci_low" in repr(pd.concat([table, table], axis=1))
    alike = tidy([{"block": "mid_block", "accuracy": 0.4}] * 2)
    assert "mid_block" in repr(alike) and "Empty DataFrame" not in repr(alike)
    with pd.option_context("display.notebook_repr_html", False):
        assert table._repr_html_() is None
