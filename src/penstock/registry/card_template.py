"""A card to begin from: front matter and sections filled with what a version's metadata and evaluations say, the rest marked for people.

The front matter is that of the Hugging Face hub (https://huggingface.co/docs/hub/model-cards), results as its `model-index`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml

_LIBRARIES = {"safetensors": "transformers", "openvino": "openvino"}
# What the front matter should say, with an example; it stands there as a comment until somebody says it.
_EXAMPLES = {
    "license": "apache-2.0",
    "language": "[en]",
    "pipeline_tag": "text-generation",
    "datasets": "[NAME]",
    "base_model": "ORGANISATION/NAME",
    "model-index": "[{name: NAME, results: [{task: {type: text-generation}, dataset: {name: N, type: N}, metrics: [{type: T, value: 0.9}]}]}]",
}
# Ours -> the hub's words for the relation to a base model.
_RELATIONS = {"fine_tuned_from": "finetune", "quantised_from": "quantized", "merged_from": "merge"}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure: of a metric, on a data set."""

    metric: str
    value: float
    lower: float | None = None
    upper: float | None = None
    count: int | None = None
    unit: str = ""
    dataset: str = ""
    split: str = ""
    source: str = ""


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version: `datasets` by name, `bases` as (relation, name)."""

    model: str
    label: str
    digest: str
    metadata: Mapping[str, Any] = {}
    results: Sequence[Result] = ()
    datasets: Sequence[str] = ()
    bases: Sequence[tuple[str, str]] = ()
    engines: Sequence[str] = ()
    size: int = 0
    chats: bool = False


def results_of(metadata: Mapping[str, Any]) -> tuple[Result, ...]:
    """The figures that a version's metadata tell (`metrics`)."""
    found = []
    for name, told in sorted((metadata.get("metrics") or {}).items()):
        one = told if isinstance(told, dict) else {"value": told}
        if isinstance(one.get("value"), int | float):
            fields = {
                key: one[key]
                for key in ("lower", "upper", "count", "unit", "dataset", "split")
                if one.get(key) is not None
            }
            found.append(Result(metric=name, value=float(one["value"]), source="metadata", **fields))
    return tuple(found)


def template_card(filling: Filling) -> str:
    """The card, as Markdown with front matter. What nobody has told yet is a comment, so that it counts as missing."""
    return f"---\n{_front(filling)}---\n\n{_body(filling)}"


def _front(filling: Filling) -> str:
    metadata = filling.metadata
    front: dict[str, Any] = {
        "license": metadata.get("licence") or None,
        "language": metadata.get("languages") or None,
        "library_name": next((_LIBRARIES[one] for one in filling.engines if one in _LIBRARIES), None),
        "pipeline_tag": metadata.get("task") or ("text-generation" if filling.chats else None),
        "model_name": filling.model,
        "version": filling.label,
        "datasets": sorted(set(filling.datasets)) or None,
        "base_model": [name for _, name in filling.bases] or None,
        "base_model_relation": next((_RELATIONS[how] for how, _ in filling.bases if how in _RELATIONS), None),
        "model-index": _index(filling) if filling.results else None,
    }
    known = {name: value for name, value in front.items() if value is not None}
    asked = "".join(f"# {name}: {example}\n" for name, example in _EXAMPLES.items() if name not in known)
    return yaml.safe_dump(known, sort_keys=False, allow_unicode=True) + asked


def _index(filling: Filling) -> list[dict[str, Any]]:
    """As the hub's `model-index`: results by data set."""
    by_set: dict[tuple[str, str], list[Result]] = {}
    for one in filling.results:
        by_set.setdefault((one.dataset or "unnamed", one.split), []).append(one)
    results = [
        {
            "task": {"type": filling.metadata.get("task") or "text-generation"},
            "dataset": {"name": dataset, "type": dataset} | ({"split": split} if split else {}),
            "metrics": [{"type": one.metric, "name": one.metric, "value": one.value} for one in found],
        }
        for (dataset, split), found in by_set.items()
    ]
    return [{"name": filling.model, "results": results}]


def _body(filling: Filling) -> str:
    metadata = filling.metadata
    training = metadata.get("training") or {}
    parts = [
        f"# {filling.model} {filling.label}",
        _text(metadata.get("description"), "what it is, in a sentence or two"),
        "## Intended use",
        _text(metadata.get("intended_use"), "what it is for, and for whom"),
        "## Out of scope",
        _text(metadata.get("out_of_scope"), "what it must not be used for"),
        "## Limitations",
        _list(metadata.get("limitations")) or _text(None, "what it does badly, and for whom"),
        "## Training data",
        _text(training.get("description"), "what it was trained on")
        + ("\n\n" + _list(filling.datasets) if filling.datasets else ""),
        "## Training",
        _pairs(metadata.get("hyperparameters") or {}) or _text(None, "how it was trained"),
        "## Evaluation",
        _figures(filling.results) or _text(None, "how good it is, with intervals"),
        "## Dependencies",
        _pairs(_flat(metadata.get("dependencies") or {})) or _text(None, "base model, tokenizer, libraries"),
        "## Contact",
        _text(metadata.get("contact"), "who answers for it"),
    ]
    return "\n\n".join(parts) + "\n"


def _text(value: Any, ask: str) -> str:
    return str(value).strip() if value else f"<!-- Say {ask}. -->"


def _list(values: Any) -> str:
    return "\n".join(f"- {one}" for one in values or ())


def _pairs(values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    rows = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items())
    return f"| name | value |\n|---|---|\n{rows}"


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        here = f"{path}{name}"
        found |= _flat(value, f"{here}.") if isinstance(value, dict) else {here: value}
    return found


def _figures(results: Sequence[Result]) -> str:
    if not results:
        return ""
    rows = [
        f"| {_cell(one.metric)} | {one.value:g}{one.unit} | {_interval(one)} | {one.count or ''} | {_cell(one.dataset)} |"
        for one in results
    ]
    return "| metric | value | 95 % interval | count | data set |\n|---|---|---|---|---|\n" + "\n".join(rows)


def _interval(one: Result) -> str:
    return "" if one.lower is None or one.upper is None else f"{one.lower:g} to {one.upper:g}"


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
