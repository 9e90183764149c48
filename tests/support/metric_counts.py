"""Looks at what this process has counted."""

from __future__ import annotations

from worker_chart_export.observability import metrics


def counts():
    """Each counter's series, written as `claims_total{won}`, and how far it has come."""
    return {
        f"{sample.name.removeprefix('chart_export_')}{{{','.join(sample.labels.values())}}}": sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("chart_export_") and sample.name.endswith(("_total", "_count"))
    }


def value(name, **labels):
    """One series' value."""
    return metrics.REGISTRY.get_sample_value(f"chart_export_{name}", labels)
