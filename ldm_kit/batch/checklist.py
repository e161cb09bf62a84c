"""A reporting checklist: what a reader of a paper asks of each number, taken from the tables and the record of a run.

It tells what the run saved, table by table. What no table and no record holds is "not told": nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

NOT_TOLD = "not told"
CEILINGS_SHOWN = 3
WITHOUT_PEOPLE = {
    "simulated": "none: simulated observers",
    "human model": "none: choices drawn from an embedding that was fitted to people's",
}
Frames = Mapping[str, "pd.DataFrame"]


def checklist(
    tables: Frames, record: Mapping[str, Any], excluded_by_protocol: Sequence[str] = ()
) -> dict[str, str]:
    """Gather what a paper has to report of a run's numbers.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        The run's tables by name. Columns that are read, where a table has them: ``n_objects``, ``n_concepts``, ``n_triplets``,
        ``n_people``, ``n_draws``, ``n_noise``, ``judgements``, ``estimand``, ``correction``, ``n_compared``, ``ceiling_low``,
        ``ceiling_high``, ``ceiling_source``, ``not_finite``.
    record : mapping
        What the run recorded (`RunRecord.record`): ``judgements``, ``exclusions``, and counts by their columns' names.
    excluded_by_protocol : sequence of str
        The protocol's own sentences.

    Returns
    -------
    dict of str to str
        Plain text, to be escaped: a count with the table that it is of, or ``"not told"``.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"judgements": "simulated", "n_triplets": [90, 90], "estimand": "new objects"})
    >>> told = checklist({"alignment": table}, {})
    >>> told["choices"], told["people"], told["noise ceiling"]
    ('90 (alignment)', 'none: simulated observers (alignment)', 'not told')
    """
    return {
        "judgements": _by_table(tables, lambda table: _texts(table, "judgements"))
        or _recorded(record, "judgements"),
        "objects judged": _count(tables, record, n_objects="objects", n_concepts="concepts"),
        "choices": _count(tables, record, n_triplets=""),
        "people": _people(tables, record),
        "noise samples": _count(
            tables, record, n_draws="combined by an estimate", n_noise="averaged in the features"
        ),
        "intervals hold for": _by_table(tables, lambda table: _texts(table, "estimand")) or NOT_TOLD,
        "correction": _by_table(tables, _correction) or NOT_TOLD,
        "noise ceiling": _by_table(tables, _ceiling) or NOT_TOLD,
        "exclusions": _exclusions(tables, record, excluded_by_protocol),
    }


def _by_table(tables: Frames, tell: Callable[[pd.DataFrame], str]) -> str:
    """Say something of each table, once for all tables of which the same is said; empty if nothing is."""
    said: dict[str, list[str]] = {}
    for name, table in tables.items():
        if text := tell(table):
            said.setdefault(text, []).append(name)
    every = len(tables) > 1 and len(said) == 1 and sum(map(len, said.values())) == len(tables)
    return "; ".join(
        f"{text} ({'every table' if every else ', '.join(names)})" for text, names in said.items()
    )


def _texts(table: pd.DataFrame, column: str) -> str:
    """The distinct texts of a column, in their order; empty if there are none."""
    if column not in table:
        return ""
    return ", ".join(dict.fromkeys(str(value) for value in table[column].dropna() if str(value)))


def _range(table: pd.DataFrame, column: str) -> str:
    """A column's number, or its least and its greatest; empty if it has none."""
    import pandas as pd

    if column not in table:
        return ""
    values = pd.to_numeric(table[column], errors="coerce").dropna()
    if values.empty:
        return ""
    least, most = (f"{value:,.0f}" for value in (values.min(), values.max()))
    return least if least == most else f"{least} to {most}"


def _recorded(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value or "")) or NOT_TOLD


def _count(tables: Frames, record: Mapping[str, Any], **columns: str) -> str:
    """Say a count of each table; `columns` that may hold it, each with the words that follow the number."""
    told = []
    for column, of in columns.items():

        def tell(table: pd.DataFrame, column: str = column, of: str = of) -> str:
            return f"{count} {of}".strip() if (count := _range(table, column)) else ""

        text = _by_table(tables, tell)
        if not text and record.get(column) is not None:
            text = f"{record[column]} {of}".strip()
        told += [text] if text else []
    return "; ".join(told) or NOT_TOLD


def _people(tables: Frames, record: Mapping[str, Any]) -> str:
    """How many people judged; of simulated observers that there were none."""

    def tell(table: pd.DataFrame) -> str:
        judgements, count = _texts(table, "judgements"), _range(table, "n_people")
        if judgements in WITHOUT_PEOPLE:
            return WITHOUT_PEOPLE[judgements] + (
                f" ({count} of them)" if count and judgements == "simulated" else ""
            )
        return count or (NOT_TOLD if judgements else "")

    told = _by_table(tables, tell)
    if record.get("n_people") is not None and (not told or NOT_TOLD in told):
        return str(record["n_people"])
    return told or WITHOUT_PEOPLE.get(_recorded(record, "judgements"), NOT_TOLD)


def _correction(table: pd.DataFrame) -> str:
    """How p-values and intervals were corrected, and for how many comparisons; empty for a table without any."""
    count = _range(table, "n_compared")
    if not count:
        return ""
    if count == "1":
        return "one comparison" if len(table) == 1 else f"{len(table)} comparisons, not corrected"
    return f"for {count} comparisons, {_texts(table, 'correction') or 'method not told'}"


def _ceiling(table: pd.DataFrame) -> str:
    import pandas as pd

    if not {"ceiling_low", "ceiling_high"} <= set(table.columns):
        return ""
    bounds = table[["ceiling_low", "ceiling_high"]].apply(pd.to_numeric, errors="coerce").dropna(how="all")
    known = bounds.drop_duplicates()
    if known.empty:
        return ""
    told = ", ".join(f"{low:.3f} to {high:.3f}" for low, high in known.itertuples(index=False))
    if len(known) > CEILINGS_SHOWN:
        told = f"{len(known)} of them within {known.min().min():.3f} to {known.max().max():.3f}"
    return f"{told}, source: {_texts(table.loc[known.index], 'ceiling_source') or NOT_TOLD}"


def _exclusions(tables: Frames, record: Mapping[str, Any], by_protocol: Sequence[str]) -> str:
    def refused(table: pd.DataFrame) -> str:
        count = _range(table, "not_finite")
        return f"images with activations that are not finite: {count}" if count else ""

    recorded = _recorded(record, "exclusions")
    parts = [
        *(f"by the protocol: {text}" for text in by_protocol),
        *([f"recorded: {recorded}"] if recorded != NOT_TOLD else []),
        *([text] if (text := _by_table(tables, refused)) else []),
    ]
    return "; ".join(parts) or NOT_TOLD
