"""Charts drawn in this process from the candles of the run: no network, no quota.

Import its modules by name. The package itself imports nothing, so a worker that never draws a chart never
loads NumPy, Pillow or aggdraw.
"""

from __future__ import annotations
