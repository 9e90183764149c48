"""Tracing with OpenTelemetry: one trace from the publisher's span to the last write. Off by default.

`setup.py` switches it on and off. `spans.py` makes the spans of the work, `publishing.py` those of a
publisher. `export.py` sends them. `propagation.py` reads and writes trace contexts.
"""
