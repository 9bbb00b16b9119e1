"""Recipients, identities and the files that hold them."""

import hashlib
import secrets

import pytest

from dockd.core import bech32
from dockd.core.sealing import Identity, Recipient, fingerprint, parse_identity_file, parse_recipients_file
from dockd.errors import VerificationFailed

_IDENTITY = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZ9K4CN"
_RECIPIENT = "age15nsf9y4k28p83wth93tf7hafhvfajp45d2mge80ems45gz0c5gys3me64l"
_OTHER = "age1e6xn45wvkce7c7msc9upffw8dmxs9959q5xng369hgzcwrjc04vszex59m"


def test_text_and_key_are_one_to_one():
    identity = Identity.generate(secrets.token_bytes)
    assert Identity.parse(identity.text) == identity
    assert Recipient.parse(identity.recipient.text) == identity.recipient
    assert Identity.parse(_IDENTITY).recipient.text == _RECIPIENT


def test_a_fingerprint_is_the_digest_of_the_text():
    expected = "sha256:" + hashlib.sha256(_RECIPIENT.encode()).hexdigest()
    assert Recipient.parse(_RECIPIENT).fingerprint == fingerprint(_RECIPIENT) == expected


def test_an_identity_is_never_shown():
    identity = Identity.parse(_IDENTITY)
    assert identity.scalar.hex() not in repr(identity)
    assert "\\x01" not in repr(identity)
    assert _IDENTITY not in f"{identity}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "prefix"),
        (_RECIPIENT.upper(), "upper case"),
        (_RECIPIENT[:-1] + "q", "checksum"),
        (_RECIPIENT + " ", "32"),
        (_IDENTITY, "identity"),
        (bech32.encode("age", bytes(31)), "31 bytes"),
        (bech32.encode("bge", bytes(32)), "age1"),
        (bech32.encode("age", bytes(32)), "low order"),
        (bech32.encode("age", (1).to_bytes(32, "little")), "low order"),
        (bech32.encode("age1pq", bytes(1216)), "supported"),
    ],
)
def test_a_bad_recipient_is_refused_with_the_reason(text, complaint):
    with pytest.raises(VerificationFailed, match=complaint):
        Recipient.parse(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_IDENTITY.lower(), "lower case"),
        (_IDENTITY[:-1] + "Q", "checksum"),
        (_RECIPIENT, "public key"),
        (bech32.encode("age-secret-key-", bytes(33)).upper(), "33 bytes"),
        ("AGE-SECRET-KEY-PQ-1QQQQ", "supported"),
    ],
)
def test_a_bad_identity_is_refused_without_repeating_it(text, complaint):
    with pytest.raises(VerificationFailed, match=complaint) as caught:
        Identity.parse(text)
    assert text[20:] not in str(caught.value)


def test_files_may_have_comments_blank_lines_and_crlf():
    keys = f"# created: 2026-01-31\r\n# public key: {_RECIPIENT}\r\n\r\n  {_IDENTITY}  \r\n"
    assert [identity.text for identity in parse_identity_file(keys)] == [_IDENTITY]
    recipients = parse_recipients_file(f"# working\n{_RECIPIENT}\n\n# escrow\n{_OTHER}")
    assert [recipient.text for recipient in recipients] == [_RECIPIENT, _OTHER]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("# nothing\n", "there is no recipient"),
        (f"{_RECIPIENT}\n\nssh-ed25519 AAAA\n", "line 3: "),
        (f"# a\n{_RECIPIENT}\n{_OTHER}\n{_RECIPIENT}\n", "line 4: the same recipient as in line 2"),
    ],
)
def test_a_bad_recipients_file_is_refused_with_the_line(content, complaint):
    with pytest.raises(VerificationFailed, match=complaint):
        parse_recipients_file(content)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "there is no identity"),
        (f"{_IDENTITY}\n{_RECIPIENT}\n", "line 2: this is a recipient"),
        ("age-encryption.org/v1\n-> scrypt", "itself sealed"),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", "itself sealed"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "SSH"),
    ],
)
def test_a_bad_key_file_is_refused_with_the_reason(content, complaint):
    with pytest.raises(VerificationFailed, match=complaint):
        parse_identity_file(content)


def test_a_source_of_randomness_that_runs_dry_makes_no_key():
    with pytest.raises(ValueError, match="31 bytes instead of 32"):
        Identity.generate(lambda count: bytes(count - 1))
