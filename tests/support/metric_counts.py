"""Reads of this process' metrics."""

from __future__ import annotations

from worker_chart_export.observability import metrics


def counts():
    """Return each counter's series, such as `claims_total{won}`, and its value."""
    return {
        f"{sample.name.removeprefix('chart_export_')}{{{','.join(sample.labels.values())}}}": sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
        if sample.name.startswith("chart_export_") and sample.name.endswith(("_total", "_count"))
    }


def value(name, **labels):
    """Return the value of one series."""
    return metrics.REGISTRY.get_sample_value(f"chart_export_{name}", labels)
