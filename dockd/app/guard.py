"""Look for keys that must not be on a dock: an age identity that opens its clips, the store's signing key."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dockd.config.schema import StationConfig
from dockd.core.keyfiles import parse_store_pub
from dockd.core.sealing import parse_identity_file, parse_recipients_file
from dockd.core.sshsig import PublicKey, SigningKey
from dockd.errors import VerificationFailed

_DEPTH = 3
_LARGEST_KEY = 64 * 1024
_MOST_FILES = 20_000


def readable_secrets(config_path: Path, config: StationConfig) -> list[str]:
    """A sentence for each key found. Looked at: small files near the configuration and near what it names.

    It cannot find what is hidden well; it finds what was forgotten. Raises OSError where the public files are missing.
    """
    recipients = {one.text for one in parse_recipients_file(config.seal.recipients_file.read_text())}
    store = parse_store_pub(config.store.key_file.read_text()).key
    roots = {config_path.parent, config.seal.recipients_file.parent, config.store.key_file.parent, config.station.state_dir}
    skipped = {config.spool_directory.absolute(), config.bays.folder_root.absolute()}
    found: dict[Path, str] = {}
    for root in roots:
        for path in _small_files(root.absolute(), skipped):
            reason = _secret(path, recipients, store)
            if reason:
                found[path] = f"{path} is {reason}"
    return [found[path] for path in sorted(found)]


def _small_files(root: Path, skipped: set[Path]) -> Iterator[Path]:
    count = 0
    for directory, names, files in os.walk(root):
        here = Path(directory)
        deep = len(here.relative_to(root).parts) >= _DEPTH
        names[:] = [] if deep else [name for name in names if here / name not in skipped]
        for name in files:
            count += 1
            if count > _MOST_FILES:
                return
            yield here / name


def _secret(path: Path, recipients: set[str], store: PublicKey) -> str:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_KEY:
            return ""
        content = path.read_bytes()
    except OSError:
        return ""  # what this user cannot read is no danger from this program
    try:
        if b"AGE-SECRET-KEY-1" in content.upper():
            opens = {one.recipient.text for one in parse_identity_file(content.decode())}
            return "an age identity that opens this dock's clips" if opens & recipients else ""
        if b"OPENSSH PRIVATE KEY" in content:
            return "the store's signing key" if SigningKey.parse(content).public == store else ""
    except (VerificationFailed, UnicodeDecodeError):
        return ""
    return ""
