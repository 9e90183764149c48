"""Renderer processes: charts are drawn on all cores, and a crash in a drawing library costs one chart."""
