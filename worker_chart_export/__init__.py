"""The domain of the chart export worker: what a CHART_EXPORT step is and how one is worked.

Knows nothing of Pub/Sub, processes or signals; those live in the package ``daemon``.
"""

from __future__ import annotations
