"""Tracing with OpenTelemetry: one trace from the publisher's span to the last write. Off by default.

`switch.py` decides and is what the process knows; `spans.py` makes the spans of the work and `published.py`
those of a publisher; `export.py` sends them; `trace_context.py` knows how a trace travels and is logged.
"""
