"""What an S3 answer means: the table of error codes, and the sentences for people."""

from __future__ import annotations

from collections.abc import Mapping

from dockd.core.transfer import Call, RetryClass
from dockd.stores import s3_xml
from dockd.stores.wire import Answer, Judgement, sentence

R = RetryClass

# Amazon S3 API Reference, "Error responses", and what SeaweedFS, Ceph and MinIO add. No code refuses a clip: what is
# wrong is always the store, the way to it, or this station's permissions, and a person mends it for all clips at once.
CODES: Mapping[str, RetryClass] = {
    "NotImplemented": R.LACKING,
    "MethodNotAllowed": R.LACKING,
    "NoSuchUpload": R.GONE,
    "NoSuchKey": R.GONE,
    "NoSuchVersion": R.GONE,
    "ExpiredToken": R.RENEW,
    "ExpiredTokenException": R.RENEW,
    "TokenRefreshRequired": R.RENEW,
    "InvalidToken": R.RENEW,
    "InvalidAccessKeyId": R.RENEW,  # rotated: the new key may be in the file by now
    "SignatureDoesNotMatch": R.RENEW,  # same
    "SlowDown": R.LATER,
    "ServiceUnavailable": R.LATER,
    "InternalError": R.LATER,
    "OperationAborted": R.LATER,
    "ConditionalRequestConflict": R.LATER,
    "RequestTimeout": R.LATER,
    "TooManyRequests": R.LATER,
    "QuotaExceeded": R.LATER,
    "XMinioStorageFull": R.LATER,
    "BadDigest": R.RESUME,  # damaged on its way: the part is sent again
    "XAmzContentSHA256Mismatch": R.RESUME,
    "XAmzContentChecksumMismatch": R.RESUME,
    "IncompleteBody": R.RESUME,
}

FINISH_CODES: Mapping[str, RetryClass] = {
    "BadDigest": R.RESEND,
    "InvalidPart": R.RESEND,  # it lists parts that it does not take
    "InvalidPartOrder": R.RESEND,
    "EntityTooSmall": R.RESEND,
}
"""Where it means something else of CompleteMultipartUpload."""

_SENTENCES: Mapping[str, str] = {
    "NoSuchBucket": "the bucket does not exist: compare the store's bucket and url with what was set up there",
    "AccessDenied": "this station's key has no permission for it: compare its policy with docs/stores-choice.md",
    "AllAccessDisabled": "access to the bucket is switched off there",
    "RequestTimeTooSkewed": "the clocks of this station and of the store differ too much: set the station's time",
    "RequestExpired": "the clocks of this station and of the store differ too much: set the station's time",
    "InvalidAccessKeyId": "the store does not know this station's access key: renew the credentials",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: renew the credentials",
    "ExpiredToken": "the session's credentials have expired: renew them",
    "QuotaExceeded": "the bucket's quota is used up: raise it at the store",
    "XMinioStorageFull": "the store's disks are full",
    "EntityTooLarge": "the part is larger than the store takes: set a smaller part size",
}
_LATER = (429, 500, 503, 507)
_REDIRECTS = (301, 302, 303, 307, 308)
_ELSEWHERE = (
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)
_FAILED = 300
_IDS = ("x-amz-request-id", "x-amz-id-2", "x-amzn-requestid", "x-amzn-request-id")
_XML = ("application/xml", "text/xml")


def judge(call: Call, answer: Answer) -> Judgement:
    """How S3 is understood. An answer of 200 with an error record is an error (CompleteMultipartUpload)."""
    said = s3_xml.refusal(answer.body)
    if answer.status < _FAILED and said is None:
        if s3_xml.is_page(answer.body):
            words = "a page for people, so something before the store"
            return Judgement(found=R.UNUSABLE, words=sentence(call, answer.status, words))
        return Judgement(found=R.DONE, words="")
    if answer.status in _REDIRECTS or (said is not None and said.code in _ELSEWHERE):
        region = answer.headers.get("x-amz-bucket-region") or (said.region if said else "")
        where = f"in region {region}" if region else "at another address"
        words = f"the bucket is {where}: set the store's region and url to it; redirects are not followed"
        return Judgement(found=R.UNUSABLE, words=sentence(call, answer.status, words))
    if said is not None:
        return _coded(call, answer, said)
    return _uncoded(call, answer)


def own_words(answer: Answer) -> bool:
    """Whether the headers show that S3 itself answered, and nothing before it: a HEAD's answer has no record to show.

    A request id, by any of the names that are in use, or the type of the record that a GET would bring. Of others'
    `x-amz-` headers some are written by caches and balancers.
    """
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in _XML or any(name in answer.headers for name in _IDS)


def _coded(call: Call, answer: Answer, said: s3_xml.Refusal) -> Judgement:
    if not said.code:
        return _codeless(call, answer, said)
    found = FINISH_CODES.get(said.code) if call is Call.FINISH else None
    found = found or CODES.get(said.code)
    if found is None:
        found = R.LATER if answer.status in _LATER else R.UNUSABLE
    words = _SENTENCES.get(said.code) or said.message
    return Judgement(found=found, words=sentence(call, answer.status, f"{said.code}: {words}" if words else said.code))


def _codeless(call: Call, answer: Answer, said: s3_xml.Refusal) -> Judgement:
    """The store's record without a code: its status has to do, as botocore does it."""
    found = R.LATER if answer.status in _LATER else R.UNUSABLE
    if answer.status == 404 and call in (Call.LOOK, Call.OFFSET, Call.READ, Call.ABANDON):  # noqa: PLR2004
        found = R.GONE
    elif answer.status in (401, 403):
        found = R.RENEW
    elif answer.status in (405, 501):
        found = R.LACKING
    return Judgement(found=found, words=sentence(call, answer.status, said.message or "an error without a code"))


def _uncoded(call: Call, answer: Answer) -> Judgement:
    """Without a record: a HEAD's answer, or something that stands before the store."""
    own = own_words(answer)
    head = call is Call.LOOK and not answer.body
    words = ""
    if answer.status == 404 and head and own:  # noqa: PLR2004
        return Judgement(found=R.GONE, words=sentence(call, answer.status, "no such object"))
    if answer.status in (400, 401, 403) and head and own:
        # A HEAD cannot say why. It may be credentials that ended.
        return Judgement(found=R.RENEW, words=sentence(call, answer.status, _SENTENCES["AccessDenied"]))
    if answer.status == 413:  # noqa: PLR2004
        words = (
            "something before the store takes no bodies of this length: let it take the store's part_bytes (nginx: "
            "client_max_body_size)"
        )
    found = R.LATER if answer.status in _LATER else R.UNUSABLE
    return Judgement(found=found, words=sentence(call, answer.status, words))
