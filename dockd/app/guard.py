"""Look for keys that must not be on a dock (P03): an age identity that opens its clips, the store's signing key."""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from dockd.config.schema import StationConfig
from dockd.config.stores import ReceiverStore
from dockd.core.keyfiles import parse_store_pub
from dockd.core.sealing import Identity, parse_recipients_file
from dockd.errors import VerificationFailed

_log = structlog.get_logger()

_DEPTH = 3  # directories below a place that is searched
_LARGEST_KEY = 64 * 1024
_MOST_FILES = 20_000
_IDENTITY = re.compile(rb"AGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE)
_PRIVATE = re.compile(rb"-----BEGIN ((?:OPENSSH )?PRIVATE KEY)-----.+?-----END \1-----\n?", re.DOTALL)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO must not hold us up


def readable_secrets(config_path: Path, config: StationConfig) -> list[str]:
    """A sentence for each key found: in small files near the configuration, near what it names, and in the state.

    It finds what was forgotten, not what was hidden. Bays and spool are left out: a camera is not for us to read, and
    the spool holds nothing but sealed clips. Raises OSError or VerificationFailed where the public files are unusable.
    """
    recipients = {one.text for one in parse_recipients_file(config.seal.recipients_file.read_text(encoding="utf-8"))}
    keys = [one.key_file for one in config.store.values() if isinstance(one, ReceiverStore)]
    stores = {parse_store_pub(file.read_text(encoding="utf-8")).key.line("").split()[1] for file in keys}
    pinned = [*keys, *(one.ca_file for one in config.store.values() if one.ca_file is not None)]
    named = (config.seal.recipients_file, *pinned, *_own_keys(config))
    roots = [config_path.resolve().parent, *(path.parent for path in named), config.station.state_dir]
    skipped = {path.resolve() for path in (config.spool_directory, config.bays.folder_root) if path is not None}
    found: dict[Path, str] = {}
    for path in _small_files(roots, skipped):
        reason = _secret(_content(path), recipients, stores)
        if reason:
            found[path.resolve()] = f"{path} is {reason}"
    return [found[path] for path in sorted(found)]


def _own_keys(config: StationConfig) -> tuple[Path, ...]:
    return (config.keys.manifest, config.keys.checkpoint)


def _small_files(roots: list[Path], skipped: set[Path]) -> Iterator[Path]:
    """The files below `roots`, nearest first, each directory once, links to directories not followed."""
    waiting = deque((root.absolute(), 0) for root in roots)
    seen: set[Path] = set()
    count = 0
    while waiting:
        directory, depth = waiting.popleft()
        resolved = directory.resolve()
        if resolved in seen or resolved in skipped:
            continue
        seen.add(resolved)
        try:
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue  # what this user cannot list is no danger from this program
        for entry in entries:
            count += 1
            if count > _MOST_FILES:
                _log.warning("secrets_search_cut_short", files=_MOST_FILES, at=str(directory))
                return
            if not entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
            elif depth < _DEPTH:
                waiting.append((Path(entry.path), depth + 1))


def _content(path: Path) -> bytes:
    """A small plain file's content; nothing for any other, and for what this user cannot read."""
    try:
        fd = os.open(path, _READ)
    except OSError:
        return b""
    try:
        status = os.fstat(fd)
        plain = stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_KEY
        return os.read(fd, _LARGEST_KEY) if plain else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def _secret(content: bytes, recipients: set[str], stores: set[str]) -> str:
    """What secret a file holds, in words, or an empty text."""
    for token in _IDENTITY.findall(content):
        try:
            if Identity.parse(token.decode().upper()).recipient.text in recipients:
                return "an age identity that opens this station's clips"
        except VerificationFailed:
            continue
    for block in _PRIVATE.finditer(content):
        if _public_of(block.group()) in stores:
            return "the store's signing key, with which receipts can be forged"
    return ""


def _public_of(pem: bytes) -> str:
    """The base64 of OpenSSH's public form of an unencrypted Ed25519 private key; an empty text for any other."""
    load = load_ssh_private_key if b"OPENSSH" in pem else load_pem_private_key
    try:
        key = load(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ""
    if not isinstance(key, Ed25519PrivateKey):
        return ""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()[1]
