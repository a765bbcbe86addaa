"""Which names and labels of a PromQL expression the metrics table does not know."""

import re
from collections.abc import Container

from penstock.core.metrics import TABLE

_OWN = {entry.name: {*entry.labels} for entry in TABLE}
_SUFFIXES = ("_bucket", "_sum", "_count")
_ALWAYS = {"instance", "job", "worker", "le", "pool", "replica"}  # of targets, gateways' workers, histograms
_RECORDED_LABELS = {"route", "tenant", "model_name"}
_PROMETHEUS = {"up"}


def unknown(expr: str, recorded: Container[str]) -> list[str]:
    """What in `expr` is neither in the table nor among `recorded`, each as a sentence; names of labels are checked against all metrics read."""
    text = re.sub(r'"[^"]*"', '""', expr)
    names = set(
        re.findall(r"(?<![\w:$])(?:penstock_|gen_ai_|vllm:|process_|route:|tenant_route:|model_name:)[\w:]+", text)
    )
    problems: list[str] = []
    labels = set(_ALWAYS)
    for name in names:
        base = next(
            (name.removesuffix(s) for s in _SUFFIXES if name.endswith(s) and name.removesuffix(s) in _OWN), name
        )
        if base in _OWN:
            labels |= _OWN[base]
        elif name in recorded:
            labels |= _RECORDED_LABELS
        elif not any(name in known for known in _OWN.values()):
            problems.append(f"{name} is no metric")
    if not names and not _PROMETHEUS & set(re.findall(r"\w+", text)):
        problems.append(f"{expr!r} reads no metric")
    used = {
        label.strip()
        for group in re.findall(r"\b(?:by|on|without|group_left|group_right)\s*\(([^)]*)\)", text)
        for label in group.split(",")
        if label.strip()
    }
    used |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)", text))
    made = set(re.findall(r'label_replace\(.*?,\s*"(\w+)"', expr, re.DOTALL))
    return problems + [f"{label} is no label of {sorted(names)}" for label in sorted(used - labels - made)]
