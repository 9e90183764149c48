"""Charts drawn here, from the run's own price candles: no network, no quota.

Import `provider` (or `gallery`) from here; this package itself loads nothing, so a worker that never draws
never loads NumPy, TA-Lib, Pillow or aggdraw.
"""

from __future__ import annotations
