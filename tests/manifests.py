"""Manifests of clips that were never read."""

from dockd.core.manifest import Manifest


def stated(station, row, sealed, seq, nonce):
    """What a station states of a row and its sealed clip."""
    return Manifest(
        acquisition=row.acquisition,
        station=station,
        bay=row.bay,
        docking=row.docking,
        camera=row.camera,
        path=row.file.path,
        size_bytes=row.file.size_bytes,
        mtime_ns=row.file.mtime_ns,
        recorded_at=None,
        duration_ms=None,
        clock_offset_ms=None,
        category=row.category,
        category_reason="",
        verdict=sealed.verdict.status,
        reasons=sealed.verdict.reasons,
        container="mp4",
        plaintext_digest=sealed.plaintext_digest,
        plaintext_size_bytes=sealed.plaintext_size_bytes,
        sealed_digest=sealed.sealed_digest,
        sealed_size_bytes=sealed.sealed_size_bytes,
        recipients=sealed.recipients,
        dockd="0",
        custody_seq=seq,
        nonce=nonce,
    )
