"""The domain of the chart export worker: CHART_EXPORT steps, and the work on them.

It does not depend on Pub/Sub, processes or signals. Those are in the package ``daemon``.
"""

from __future__ import annotations
