"""S3 that is real but less strict is understood as boto3 understands it; what is something else's answer never is."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from servers.buckets import adapter
from servers.scripted import scripted

from dockd.core.findings import Answer, Question
from dockd.errors import StoreBusy, StoreError, StoreLacks, StoreUnreachable, UploadLost
from dockd.model import Category
from dockd.stores import s3_probe, s3_xml
from dockd.stores.s3_parts import MIB, Cut, Part
from dockd.stores.s3_records import Lock, LockMode

KEY = "a/clip.age"
ANONYMOUS = {"x-amz-request-id": ""}  # the header is not sent
PAGE = "<!DOCTYPE html><html><body>Please log in</body></html>"
NO_KEY = "<Error><Code>NoSuchKey</Code></Error>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    s3_url: str
    access_key: str = "AK"
    secret_key: str = "SK"  # noqa: S105  of a server that lives as long as the test


@pytest.fixture
async def server():
    async with scripted(NO_KEY.encode()) as running:
        yield running


@pytest.fixture
async def bucket(server):
    store = adapter(Running(s3_url=server.url), "vault")
    async with contextlib.aclosing(store):
        yield store.bucket


# --- what is not there


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-request-id": "1"},
        {"x-amz-id-2": "1"},
        {"x-amzn-requestid": "1", "Content-Type": "text/html; charset=utf-8"},  # moto
        {"X-AMZN-RequestId": "1"},
        {"Content-Type": "application/xml", "Content-Length": "146"},  # s3rver
        {"content-type": "text/xml; charset=utf-8"},
    ],
)
async def test_a_head_404_of_the_store_itself_is_believed_at_once(server, bucket, headers):
    server.on("HEAD", KEY, 404, headers=ANONYMOUS | headers)
    assert await bucket.found(KEY) is None
    assert server.asked("GET") == []


async def test_a_head_404_that_anybody_may_have_said_is_asked_about_by_a_get(server, bucket):
    server.on("HEAD", KEY, 404, headers=ANONYMOUS)
    server.on("GET", KEY, 404, NO_KEY, headers=ANONYMOUS)
    assert await bucket.found(KEY) is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, PAGE, {"Content-Type": "text/html"}), StoreUnreachable),
        ((404, "", {}), StoreUnreachable),
        ((404, "", {"x-amz-cf-id": "a-cache"}), StoreUnreachable),
        ((404, '{"detail": "not found"}', {"Content-Type": "application/json"}), StoreUnreachable),
        ((404, "<Error><Code>NoSuchBucket</Code></Error>", {}), StoreUnreachable),
        ((200, "there after all", {}), StoreUnreachable),
        ((200, PAGE, {}), StoreUnreachable),
        ((503, "", {}), StoreBusy),
    ],
)
async def test_a_404_of_something_before_the_store_is_no_answer(server, bucket, answer, error):
    status, body, headers = answer
    server.on("HEAD", KEY, 404, headers=ANONYMOUS | {"Content-Type": "text/html"})
    server.on("GET", KEY, status, body, headers=ANONYMOUS | headers)
    with pytest.raises(error):
        await bucket.found(KEY)


@pytest.mark.parametrize("body", ["<Error/>", "<Error><Message>no</Message></Error>", "<Error><Code/></Error>"])
async def test_an_error_without_a_code_means_what_its_status_means(server, bucket, body):
    for status, error in ((404, UploadLost), (403, StoreUnreachable), (501, StoreLacks), (500, StoreBusy)):
        server.on("GET", "uploadId=u", status, body, headers=ANONYMOUS)
        with pytest.raises(error):
            await bucket.parts(KEY, "u")
    server.on("GET", "uploadId=u", 200, body, headers=ANONYMOUS)
    with pytest.raises(StoreUnreachable):
        await bucket.parts(KEY, "u")


# --- what a HEAD says


async def test_an_object_without_an_etag_is_an_object_where_the_store_speaks(server, bucket):
    server.on("HEAD", KEY, 200, headers={"Content-Length": "5"})
    assert (await bucket.head(KEY)).size_bytes == 5


@pytest.mark.parametrize(("headers", "error"), [(ANONYMOUS, StoreUnreachable), ({"Content-Length": ""}, StoreLacks)])
async def test_a_head_without_what_is_needed_is_none(server, bucket, headers, error):
    server.on("HEAD", KEY, 200, headers=headers | {"Content-Type": "text/html"})
    with pytest.raises(error) as caught:
        await bucket.head(KEY)
    assert type(caught.value) is error


# --- parts


@pytest.mark.parametrize("etag", ["e", '"e"', 'W/"e"'])
def test_a_part_is_known_by_its_etag_with_quotes_or_without(etag):
    cut = Cut(size_bytes=5 * MIB, part_bytes=5 * MIB)
    for own in ("e", '"e"'):
        sent = {1: Part(number=1, size_bytes=5 * MIB, etag=own, sha256=bytes(32))}
        (found,) = cut.whole({1: Part(number=1, size_bytes=5 * MIB, etag=etag, sha256=None)}, sent)
        assert found.sha256 == bytes(32)
    assert cut.whole({1: Part(number=1, size_bytes=5 * MIB, etag='"f"', sha256=None)}, sent) == ()


def test_a_part_that_is_listed_without_an_etag_is_there_where_its_checksum_tells():
    cut, listed = Cut(size_bytes=5, part_bytes=5), Part(number=1, size_bytes=5, etag="", sha256=bytes(32))
    assert cut.whole({1: listed}, {}) == ()
    (found,) = cut.whole({1: listed}, {1: Part(number=1, size_bytes=5, etag='"e"', sha256=bytes(32))})
    assert found.etag == '"e"'


async def test_a_part_without_an_etag_in_its_answer_names_what_is_lacking(server, bucket):
    server.on("PUT", "partNumber=1", 200)
    with pytest.raises(StoreLacks, match="reached, but it lacks UploadPart: the ETag of a part"):
        await bucket.put_part(KEY, "u", 1, [b"x"], sha256=bytes(32))
    server.on("PUT", "partNumber=1", 200, PAGE, headers=ANONYMOUS)
    with pytest.raises(StoreUnreachable, match="page") as caught:
        await bucket.put_part(KEY, "u", 1, [b"x"], sha256=bytes(32))
    assert not isinstance(caught.value, StoreLacks)


# --- records


ROOTS = ["ListPartsResult", "ListPartsResponse", "ListPartsOutput", "ListParts"]
NAMESPACES = ["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', ' xmlns="urn:another"']


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("root", ROOTS)
def test_a_root_of_another_name_and_no_namespace_are_no_fault(root, namespace):
    body = f"<{root}{namespace}><Part><PartNumber>1</PartNumber><Size>4</Size></Part></{root}>"
    (part,) = s3_xml.parts_page(body.encode()).parts
    assert (part.number, part.size_bytes, part.etag) == (1, 4, "")


@pytest.mark.parametrize(
    "root", ["InitiateMultipartUploadResult", "InitiateMultipartUpload", "CreateMultipartUploadResponse"]
)
def test_an_upload_id_is_found_whatever_the_root_is_called(root):
    assert s3_xml.upload_id(f"<{root}><UploadId> u1 </UploadId></{root}>".encode()) == "u1"


@pytest.mark.parametrize("body", [b"", b"   ", PAGE.encode(), b"<html><Part/></html", b"<rss></rss>", b"{}", b"<a>"])
def test_what_is_no_record_of_s3_is_no_answer(body):
    for parsed in (s3_xml.upload_id, s3_xml.parts_page, s3_xml.uploads_page):
        with pytest.raises(StoreUnreachable) as caught:
            parsed(body)
        assert not isinstance(caught.value, StoreLacks)


@pytest.mark.parametrize(
    ("parsed", "body", "what"),
    [
        (s3_xml.upload_id, "<InitiateMultipartUpload/>", "UploadId"),
        (s3_xml.parts_page, "<ListPartsResult><Part><PartNumber>1</PartNumber></Part></ListPartsResult>", "Size"),
        (
            s3_xml.parts_page,
            "<ListPartsResult><IsTruncated>True</IsTruncated></ListPartsResult>",
            "NextPartNumberMarker",
        ),
        (
            s3_xml.uploads_page,
            "<ListMultipartUploads><IsTruncated>true</IsTruncated></ListMultipartUploads>",
            "NextKeyMarker",
        ),
        (s3_xml.uploads_page, "<ListMultipartUploads><Upload><Key>k</Key></Upload></ListMultipartUploads>", "UploadId"),
        (s3_xml.retention, "<Retention><Mode>GOVERNANCE</Mode></Retention>", "RetainUntilDate"),
    ],
)
def test_what_is_missing_from_the_stores_own_record_is_named(parsed, body, what):
    with pytest.raises(StoreLacks, match=f"reached, but it lacks {what}"):
        parsed(body.encode())


def test_pages_without_markers_go_on_behind_their_last_row():
    row = "<Part><PartNumber>7</PartNumber><Size>4</Size></Part>"
    page = s3_xml.parts_page(f"<ListParts><IsTruncated>true</IsTruncated>{row}</ListParts>".encode())
    assert page.marker == 7
    row = "<Upload><Key>k</Key><UploadId>u</UploadId></Upload>"
    found = s3_xml.uploads_page(
        f"<ListMultipartUploads><IsTruncated>1</IsTruncated>{row}</ListMultipartUploads>".encode()
    )
    assert found.marker is None
    found = s3_xml.uploads_page(
        f"<ListMultipartUploads><IsTruncated>true</IsTruncated>{row}</ListMultipartUploads>".encode()
    )
    assert found.marker == ("k", "u")
    assert found.uploads[0].initiated_at == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-12-01T05:01:22Z",
        "2026-12-01T05:01:22.000Z",
        "2026-12-01T05:01:22.000000000Z",
        "2026-12-01T05:01:22+00:00",
        "2026-12-01T06:01:22+0100",
        "2026-12-01 05:01:22",
        "20261201T050122Z",
        "Tue, 01 Dec 2026 05:01:22 GMT",
        "1796101282",
        "1796101282.0",
    ],
)
def test_a_time_in_any_form_that_is_in_use(text):
    body = f"<Retention><Mode>compliance</Mode><RetainUntilDate>{text}</RetainUntilDate></Retention>"
    assert s3_xml.retention(body.encode()) == s3_xml.Retention(
        mode="COMPLIANCE", until=datetime(2026, 12, 1, 5, 1, 22, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59-12:00", "Tue, 99 Dec 2026 05:01:22 GMT", "soon", "99999999999", "²²²²²²²²²²"]
)
def test_a_time_that_cannot_be_is_lacking(text):
    with pytest.raises(StoreLacks, match="a time"):
        s3_xml.retention(
            f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{text}</RetainUntilDate></Retention>".encode()
        )


@pytest.mark.parametrize("body", [b"the object itself", b"", b"<Other/>", b"\x00\xff", b"<a><Retention/></a>"])
def test_a_store_that_does_not_know_locks_lacks_them(body):
    for parsed in (s3_xml.retention, s3_xml.legal_hold):
        with pytest.raises(StoreLacks, match="does not know what was asked"):
            parsed(body)


def test_a_record_without_a_lock_says_that_there_is_none():
    assert s3_xml.retention(b"<Retention/>") is None
    assert not s3_xml.legal_hold(b"<LegalHold/>")


async def test_p01_a_store_that_does_not_know_locks_is_not_asked_to_set_one_and_overwrites_no_clip(server):
    """It would take the question for GET of the object, and the lock for PUT of another."""
    lock = Lock(mode=LockMode.COMPLIANCE, days={Category.EVIDENCE: 3})
    server.on("GET", "retention=", 200, "the sealed clip", times=9)
    store = adapter(Running(s3_url=server.url), "vault", lock=lock)
    async with contextlib.aclosing(store):
        with pytest.raises(StoreLacks, match="GetObjectRetention"):
            await store._keep_locked(KEY, lock, Category.EVIDENCE)
    assert server.asked("PUT") == []


def test_a_page_says_nothing_of_locks():
    for parsed in (s3_xml.retention, s3_xml.legal_hold):
        with pytest.raises(StoreUnreachable):
            parsed(PAGE.encode())


# --- the trial


async def _probed(server, **settings):
    store = adapter(Running(s3_url=server.url), "vault", **settings)
    async with contextlib.aclosing(store):
        found = await s3_probe.probe(store, random=bytes, clock=store._clock)
    return {str(one.question): one for one in found}


async def test_a_trial_goes_on_after_an_answer_that_lacks_something(server):
    """Creating uploads lacks an id; whole objects can be put, looked at and read all the same."""
    server.on("POST", "uploads=", 200, "<InitiateMultipartUploadResult/>", times=99)
    server.on("PUT", "", 200, times=99)
    server.on("HEAD", "", 200, headers={"Content-Length": "1024"}, times=1)
    server.on("HEAD", "", 404, times=99)
    server.on("GET", "dockd-probe", 206, bytes(512), times=99)
    server.on("DELETE", "", 204, times=99)
    found = await _probed(server)
    assert found[Question.READ_BACK].answer is Answer.YES
    assert found[Question.CHECKSUM_BACK].answer is Answer.UNKNOWN
    assert found[Question.COMPLETE].answer is Answer.NO
    assert "reached, but it lacks CreateMultipartUpload: UploadId" in found[Question.COMPLETE].detail


async def test_what_no_store_answered_is_no_word_about_what_it_has(server):
    server.on("PUT", "", 200, PAGE, times=99)
    found = await _probed(server, lock=Lock(mode=LockMode.COMPLIANCE, days={}))
    assert {one.answer for one in found.values()} == {Answer.UNKNOWN}
    assert Question.COMPLETE not in found
    assert len(server.asked("PUT")) == 2


def test_what_is_lacking_is_an_error_of_the_store_that_is_tried_again():
    assert issubclass(StoreLacks, StoreError)
    assert str(StoreLacks("ListParts")) == "reached, but it lacks ListParts"


async def test_a_trial_goes_on_after_one_answer_that_no_store_gives(server):
    """A page in the place of one answer says nothing of the next questions."""
    server.on("PUT", "", 200, PAGE, times=1)
    server.on("POST", "uploads=", 200, "<InitiateMultipartUploadResult/>", times=99)
    server.on("PUT", "", 200, times=99)
    server.on("HEAD", "", 404, times=99)
    server.on("GET", "dockd-probe", 206, bytes(512), times=99)
    found = await _probed(server)
    assert found[Question.WRONG_CHECKSUM].answer is Answer.UNKNOWN
    assert found[Question.READ_BACK].answer is Answer.YES
