"""What a notebook leaves behind."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

import ldm_kit.static_images
from ldm_kit.errors import BadInputError
from ldm_kit.results import SERIES_VARIABLE, Finding, Results
from ldm_kit.static_images import HOW_TO_GET_PNGS, write_pngs
from ldm_kit.tables import tidy


def manifest(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "results.json").read_text())
    return read


def test_tables_figures_and_findings_are_kept_and_given_back(tmp_path: Path) -> None:
    results = Results(tmp_path / "a", question="Which?")
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
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a/tables/alignment.parquet"), table)
    assert pd.read_csv(tmp_path / "a/tables/alignment.csv")["accuracy"].tolist() == [0.4]
    assert (tmp_path / "a/figures/curves.html").exists()


def test_the_same_name_replaces_and_keeps_its_place(tmp_path: Path) -> None:
    results = Results(tmp_path)
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
    Results(tmp_path).finding("old")
    Results(tmp_path)
    assert manifest(tmp_path)["findings"] == []


def test_figures_load_nothing_from_the_network_and_share_plotly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERIES_VARIABLE, str(tmp_path / "series"))
    for place in ("series/a", "series/b", "alone"):
        Results(tmp_path / place).figure(go.Figure(), "f")
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
    Results("o/a").figure(go.Figure(), "f")
    assert 'src="../../plotly.min.js"' in Path("o/a/figures/f.html").read_text()


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b", ".a"])
def test_a_name_that_is_no_file_name_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="cannot name a file"):
        Results(tmp_path).figure(go.Figure(), name)


def test_what_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    results = Results(tmp_path)
    with pytest.raises(BadInputError, match="plotly Figure or a PIL Image"):
        results.figure([1, 2], "a")
    with pytest.raises(BadInputError, match="not for JSON"):
        results.record(model=object())
    assert manifest(tmp_path)["provenance"] == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="Cannot write"):
        Results(tmp_path / "file")


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

    results = Results(tmp_path / "out")
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
    monkeypatch.setattr(ldm_kit.static_images, "find_browser", lambda: None)
    results = Results(tmp_path)
    results.figure(go.Figure(), "f")
    assert repr(results.close()) == f"Results({str(tmp_path)!r}: 0 tables, 1 figures, 0 findings)"
    assert HOW_TO_GET_PNGS in caplog.text
    assert not (tmp_path / "figures/f.png").exists()


def test_a_browser_that_fails_is_told_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(fake))
    Results(tmp_path).figure(go.Figure(), "f")
    assert "could not draw" in write_pngs([tmp_path / "figures/f.json"])
    assert not list((tmp_path / "figures").glob("*png*"))


@pytest.mark.browser
def test_pngs_are_drawn_once_and_again_when_the_figure_is_newer(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.figure(go.Figure(layout={"width": 300, "height": 200}), "f")
    results.close()
    png = tmp_path / "figures/f.png"
    assert Image.open(png).size == (600, 400)
    drawn = png.stat().st_mtime_ns
    results.close()
    assert png.stat().st_mtime_ns == drawn
