"""Reading the file ``dataset.yaml`` of :mod:`fustal_core.description`, and saying what is odd in it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from fustal_core.annotations import Report, in_short, some_quoted
from fustal_core.description import Description


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML's own loader silently takes the last.

    Merging of mappings (``<<``) is left out: a few lines of it can make more than memory holds.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        counts = Counter(k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode))
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            problem = f"{some_quoted(twice)} written twice, expected once"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        value = super().construct_scalar(node)
        value.encode()  # a ValueError where an escape is half a character
        return value


def read_yaml(path: Path, report: Report) -> dict[str, Any]:
    """The keys of a ``dataset.yaml``, empty if there is no such file; what is wrong is reported."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        return {}
    except Exception as error:  # a strange file makes the loader fail in a dozen ways
        report.problem("dataset.yaml", f"{path}: not readable YAML: {' '.join(str(error).split())}")
        return {}
    odd = [key for key in content if not isinstance(key, str)] if isinstance(content, dict) else []
    if odd:
        report.problem("dataset.yaml", f"{path}: key {in_short(odd[0])}, expected a name")
        return {}
    if not isinstance(content, dict):
        found, keys = type(content).__name__, ", ".join(Description.model_fields)
        report.problem("dataset.yaml", f"{path}: found {found}, expected keys {keys}")
        return {}
    return content
