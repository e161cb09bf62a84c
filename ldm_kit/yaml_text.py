"""YAML as people write it by hand: read safely, and a key that stands twice is an error."""

from __future__ import annotations

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself lets the last of two equal keys win."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if first := seen.get((key.tag, key.value)):
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} stands twice, in line {first.line + 1} and here",
                        problem_mark=key.start_mark,
                    )
                seen[key.tag, key.value] = key.start_mark
        return node


def load_yaml(text: str) -> Any:
    """Read a YAML document into plain data.

    Parameters
    ----------
    text : str

    Raises
    ------
    yaml.YAMLError
        If it is no YAML, or a key stands twice in one mapping; the message names the key and the line.

    Examples
    --------
    >>> load_yaml("{seed: 1, blocks: [mid_block]}")
    {'seed': 1, 'blocks': ['mid_block']}
    """
    return yaml.load(text, Loader=_Loader)  # safe: a subclass of SafeLoader
