"""S3's XML, friendly and hostile."""

from base64 import b64encode
from datetime import UTC, datetime

import pytest

from dockd.errors import StoreUnreachable
from dockd.stores import s3_xml
from dockd.stores.s3_parts import Part

NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
DIGEST = bytes(range(32))


def test_a_page_of_parts():
    page = s3_xml.parts_page(
        f"""<?xml version="1.0" encoding="UTF-8"?>
        <ListPartsResult {NS}><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId>
        <NextPartNumberMarker>2</NextPartNumberMarker><IsTruncated>true</IsTruncated>
        <Part><PartNumber>1</PartNumber><ETag>"aa"</ETag><Size>5242880</Size>
        <ChecksumSHA256>{b64encode(DIGEST).decode()}</ChecksumSHA256></Part>
        <Part><PartNumber>2</PartNumber><ETag>&#34;bb&#34;</ETag><Size>17</Size></Part></ListPartsResult>""".encode()
    )
    assert page.marker == 2
    assert page.parts == (
        Part(number=1, size_bytes=5242880, etag='"aa"', sha256=DIGEST),
        Part(number=2, size_bytes=17, etag='"bb"', sha256=None),
    )


def test_a_page_of_uploads():
    page = s3_xml.uploads_page(
        b"""<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k2</NextKeyMarker>
        <NextUploadIdMarker>u2</NextUploadIdMarker><Upload><Key>k1</Key><UploadId>u1</UploadId>
        <Initiated>2026-02-01T07:30:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"""
    )
    assert page.marker == ("k2", "u2")
    (one,) = page.uploads
    assert (one.key, one.upload_id) == ("k1", "u1")
    assert one.initiated_at == datetime(2026, 2, 1, 7, 30, tzinfo=UTC)


def test_the_last_pages_have_no_marker():
    assert s3_xml.parts_page(b"<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>").marker is None
    empty = b"<ListMultipartUploadsResult><NextKeyMarker>x</NextKeyMarker></ListMultipartUploadsResult>"
    assert s3_xml.uploads_page(empty).marker is None


def test_locks():
    found = s3_xml.retention(
        b"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2031-01-01T00:00:00Z</RetainUntilDate></Retention>"
    )
    assert found == s3_xml.Retention(mode="COMPLIANCE", until=datetime(2031, 1, 1, tzinfo=UTC))
    assert s3_xml.legal_hold(s3_xml.hold(on=True))
    assert not s3_xml.legal_hold(s3_xml.hold(on=False))
    assert s3_xml.retention(s3_xml.retain("GOVERNANCE", found.until)).until == found.until


def test_a_session():
    body = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
      <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey>
      <SessionToken>T</SessionToken><Expiration>2026-02-01T08:30:00Z</Expiration></Credentials>
      </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
    assert s3_xml.session(body) == ("A", "S", "T", datetime(2026, 2, 1, 8, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<Error><Code>SlowDown</Code></Error>", "SlowDown"),
        (f"<Error {NS}><Code>NoSuchKey</Code><Message>m</Message></Error>".encode(), "NoSuchKey"),
        (b"  \n<Error><Code>InternalError</Code></Error>", "InternalError"),  # Complete keeps alive with blanks
        (b"<ErrorResponse><Error><Code>ExpiredTokenException</Code></Error></ErrorResponse>", "ExpiredTokenException"),
    ],
)
def test_an_error_record(body, code):
    assert s3_xml.refusal(body).code == code


@pytest.mark.parametrize("body", [b"", b"<html><body>Log in</body></html>", b"{}", b"<Error><Code>", b"\xff\xfe<"])
def test_what_is_no_error_record(body):
    assert s3_xml.refusal(body) is None


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'


def _row(number="1", etag="<ETag>e</ETag>", size="<Size>1</Size>"):
    return f"<ListPartsResult><Part><PartNumber>{number}</PartNumber>{etag}{size}</Part></ListPartsResult>".encode()


HOSTILE = [
    b"",
    b"not XML",
    b"<ListPartsResult>",
    b"<html><body>Please log in</body></html>",
    BOMB + b"<ListPartsResult><Bucket>&b;</Bucket></ListPartsResult>",
    b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><ListPartsResult></ListPartsResult>',
    b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><ListPartsResult><Key>&e;</Key></ListPartsResult>',
    b'<?xml version="1.0" encoding="no-such-encoding"?><ListPartsResult></ListPartsResult>',
    b"<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>",
    _row(number="0"),
    _row(number="10001"),
    _row(number="\u0661"),
    _row(size="<Size>-1</Size>"),
    _row(size=f"<Size>{'9' * 17}</Size>"),
    _row(size=""),
    _row(etag=f"<ETag>{'e' * 5000}</ETag>"),
]


def test_the_row_that_hostile_ones_are_made_from_is_good():
    assert len(s3_xml.parts_page(_row()).parts) == 1


@pytest.mark.parametrize("body", HOSTILE)
def test_what_cannot_be_used_is_no_answer(body):
    with pytest.raises(StoreUnreachable):
        s3_xml.parts_page(body)


def test_deep_nesting_is_survived():
    body = b"<ListPartsResult>" + b"<a>" * 20_000 + b"</a>" * 20_000 + b"</ListPartsResult>"
    assert s3_xml.parts_page(body).parts == ()


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01T00:00:00Z", ""])
def test_a_time_that_is_none(text):
    with pytest.raises(StoreUnreachable):
        s3_xml.retention(
            f"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{text}</RetainUntilDate></Retention>".encode()
        )


@pytest.mark.parametrize("text", ["", "AAAA", "!!!!", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode()])
def test_what_is_no_sha256(text):
    assert s3_xml.sha256_of(text) is None


def test_a_completion_names_each_part_and_escapes():
    parts = (
        Part(number=1, size_bytes=1, etag='"a"', sha256=DIGEST),
        Part(number=2, size_bytes=1, etag="<&>", sha256=None),
    )
    body = s3_xml.completion(parts).decode()
    assert "<PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag>" in body
    assert f"<ChecksumSHA256>{b64encode(DIGEST).decode()}</ChecksumSHA256>" in body
    assert "<PartNumber>2</PartNumber><ETag>&lt;&amp;&gt;</ETag></Part>" in body


@pytest.mark.parametrize(
    "text", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2026-02-30T00:00:00Z", "9" * 400, "\u0661"]
)
def test_p09_a_date_that_no_calendar_has_in_utc_is_one_of_our_errors(text):
    body = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{text}</RetainUntilDate></Retention>".encode()
    with pytest.raises(StoreUnreachable, match="time"):
        s3_xml.retention(body)
