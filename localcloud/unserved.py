"""Name what the embedded cloud does not serve: such a request is refused, never accepted and dropped.

Each service has a table `UNSERVED` in its `unserved.py`: the name of an RPC, of a field (`Message.field`) or
of a query parameter, and what to use instead. `docs/embedded-cloud.md` is generated from these tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def refusal(name: str, unserved: Mapping[str, str]) -> str:
    """Return the message of a refusal: the name of what is not served, and what to use instead.

    Args:
        name: The RPC, the field or the parameter, as in the table. `A.b` is also found as `A`.
        unserved: The service's table: name -> an imperative sentence without a full stop.
    """
    known = next((key for key in (name, name.rpartition(".")[0]) if key in unserved), None)
    hint = f": {unserved[known]}" if known else ""
    return f"{name} is not served by the embedded cloud{hint}"
