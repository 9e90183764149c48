"""What may be a run id, a step id and a template id.

Ids come from outside and end up in document paths, field paths and object names, so each is checked before it
is used for any of them.
"""

from __future__ import annotations

import re

from worker_chart_export.errors import shown

RUN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
TEMPLATE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
#: What readers of the manifest accept as a run id (`charts_outputs_manifest.schema.json`).
MANIFEST_RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}_[A-Z0-9]+(?:-[A-Z0-9]+)*_[a-z0-9]{3,6}")
RESERVED_ID = re.compile(r"\.|\.\.|__.*__", re.DOTALL)
#: Signs that Firestore field paths or object names give a meaning to, control characters, lone surrogates.
STEP_ID_REFUSED = re.compile(r"[/.`\[\]*~\x00-\x1f\x7f-\x9f\ud800-\udfff]")
MAX_STEP_ID_BYTES = 256


def why_run_id_refused(run_id: object) -> str | None:
    """A sentence naming what is wrong with a run id, or None when it may be used."""
    if isinstance(run_id, str) and RUN_ID.fullmatch(run_id) and not RESERVED_ID.fullmatch(run_id):
        return None
    return (
        "runId: expected 1-128 characters of A-Z a-z 0-9 _ . : - and not '.', '..' or '__*__', "
        f"got {shown(run_id)}"
    )


def why_step_id_refused(step_id: object) -> str | None:
    """A sentence naming what is wrong with a step id, or None when it may be used."""
    if isinstance(step_id, str) and _is_step_id(step_id):
        return None
    return (
        f"stepId: expected 1-{MAX_STEP_ID_BYTES} bytes of UTF-8 without / . ` [ ] * ~ or control characters "
        f"and not '__*__', got {shown(step_id)}"
    )


def is_template_id(template_id: str) -> bool:
    """Whether it may be used as a template's document id; Firestore keeps `__*__` for itself."""
    return bool(TEMPLATE_ID.fullmatch(template_id)) and not RESERVED_ID.fullmatch(template_id)


def _is_step_id(step_id: str) -> bool:
    if not step_id or STEP_ID_REFUSED.search(step_id) or RESERVED_ID.fullmatch(step_id):
        return False
    return len(step_id.encode()) <= MAX_STEP_ID_BYTES
