"""Whether a bucket's own lifecycle rules delete what stations put there: nothing else does. For `dockd doctor`."""

from __future__ import annotations

from dockd.core.findings import Answer, Finding, Findings
from dockd.errors import StoreError
from dockd.stores.s3 import S3Store

DELETES = "does a rule of its own delete clips in the end?"


async def look(store: S3Store) -> Findings:
    """One finding. Never raises StoreError: what could not be asked is an UNKNOWN that says why."""
    try:
        rules = [one for one in await store.bucket.lifecycle() if f"{store.prefix}/".startswith(one.prefix)]
    except StoreError as error:
        return (Finding(question=DELETES, answer=Answer.UNKNOWN, claimed=None, detail=str(error)),)
    days = min((one.days for one in rules if one.days), default=0)
    version_days = min((one.version_days for one in rules if one.version_days), default=0)
    if not days:
        answer, detail = Answer.NO, "no lifecycle rule of the bucket is about all clips: nothing deletes there"
    elif store.lock is not None and not version_days:
        answer = Answer.NO
        detail = f"a rule hides clips after {days} days, but no NoncurrentVersionExpiration deletes them: no byte goes"
    else:
        answer, detail = Answer.YES, f"a lifecycle rule expires clips after {days} days"
        detail += f", and deletes their versions {version_days} days later" if version_days else ""
    return (Finding(question=DELETES, answer=answer, claimed=None, detail=detail),)


async def nothing_known() -> Findings:
    """Of a store of another kind that does not sign."""
    detail = "dockd deletes nothing there, and no rule of such a store can be seen from here"
    return (Finding(question=DELETES, answer=Answer.NO, claimed=None, detail=detail),)
