"""What a dockd receiver says to this station: whether it opens sessions, and owns to what it does not have."""

from __future__ import annotations

import uuid

from dockd.core.findings import Answer, Finding, Findings
from dockd.errors import StoreError, StoreIncomplete, UploadLost
from dockd.model import AcquisitionId, Entropy
from dockd.stores.port import SigningStore

SESSION = "does it know this station, and open a session?"
HOLDING = "does it own to what it does not have?"

_UUID_BYTES = 16
_NONCE_BYTES = 32


async def probe(store: SigningStore, *, random: Entropy) -> Findings:
    """Ask it. Never raises StoreError. Nothing is changed at the store."""
    try:
        size = await store.witnessed_size()
    except StoreError as error:
        return (Finding(question=SESSION, answer=Answer.NO, claimed=None, detail=str(error)),)
    opened = f"yes, and it has cosigned {size} custody entries"
    found = Finding(question=SESSION, answer=Answer.YES, claimed=None, detail=opened)
    nobody = AcquisitionId(str(uuid.UUID(bytes=random(_UUID_BYTES), version=4)))
    try:
        await store.holding(nobody, random(_NONCE_BYTES))
    except (UploadLost, StoreIncomplete):
        answer, detail = Answer.YES, "asked for a clip that never was, it says that it lacks it"
    except StoreError as error:
        answer, detail = Answer.UNKNOWN, str(error)
    else:
        answer, detail = Answer.NO, "it signs that it holds a clip that never was"
    return found, Finding(question=HOLDING, answer=answer, claimed=True, detail=detail)
