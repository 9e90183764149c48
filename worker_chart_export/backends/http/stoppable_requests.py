"""An adapter for `requests` whose calls end when their step is stopped, see `stoppable_urllib3`."""

from __future__ import annotations

from typing import Any

import requests.adapters
from urllib3 import ProxyManager

from worker_chart_export.backends.http.stoppable_urllib3 import make_cancellable


class CancellableAdapter(requests.adapters.HTTPAdapter):
    """An `HTTPAdapter` whose calls can be stopped, also through an HTTP proxy (not through a SOCKS one)."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        make_cancellable(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """Give the pools of a proxy's connections."""
        manager = super().proxy_manager_for(*args, **kwargs)
        if type(manager) is ProxyManager:
            make_cancellable(manager)
        return manager
