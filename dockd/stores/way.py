"""The way to a store, looked at for a person: whom TLS meets there, for how long, and whether the clocks agree."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from cryptography import x509

from dockd.core.findings import Answer, Finding, Findings
from dockd.errors import ConfigError
from dockd.model import Clock
from dockd.stores.address import parse_address
from dockd.stores.tls import ClientCertificate
from dockd.stores.wire import Timeouts, open_client

REACHED = "can it be reached, by a certificate that is trusted?"
CERTIFICATE = "is its certificate good for a while yet?"
CLOCKS = "do its clock and the station's agree, to a minute?"

_SOON = timedelta(days=14)
_LAST = 1 / 3  # of its life: a certificate that is renewed every week is never good for two
_APART = timedelta(seconds=60)


async def look(
    url: str,
    *,
    clock: Clock,
    timeouts: Timeouts,
    ca_file: Path | None,
    least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    certificate: ClientCertificate | None = None,
    proxy_url: str | None = None,
) -> Findings:
    """One small request over a connection of its own. Never raises but for a configuration that cannot be used."""
    client = open_client(ca_file, timeouts, least=least, certificate=certificate, proxy_url=proxy_url)
    try:
        origin = parse_address(url).origin
        async with asyncio.timeout(timeouts.exchange_s), client.stream("HEAD", f"{origin}/") as response:
            stream = response.extensions["network_stream"]
            shown = stream.get_extra_info("ssl_object").getpeercert(binary_form=True)
            told = response.headers.get("date")
            status = response.status_code
    except (httpx.HTTPError, OSError, ssl.SSLError, ConfigError) as error:
        words = str(error) or type(error).__name__
        return (Finding(question=REACHED, answer=Answer.NO, claimed=None, detail=words),)
    finally:
        await client.aclose()
    reached = Finding(question=REACHED, answer=Answer.YES, claimed=None, detail=f"it answered {status}")
    now = clock.now()
    return reached, _certificate(shown, now), _clocks(told, now)


def _certificate(shown: bytes, now: datetime) -> Finding:
    try:
        read = x509.load_der_x509_certificate(shown)
    except ValueError as error:  # TLS took it, and may be less strict
        return Finding(question=CERTIFICATE, answer=Answer.UNKNOWN, claimed=None, detail=f"it cannot be read: {error}")
    until, life = read.not_valid_after_utc, read.not_valid_after_utc - read.not_valid_before_utc
    answer = Answer.YES if until - now > min(_SOON, _LAST * life) else Answer.NO
    detail = f"until {until:%Y-%m-%d %H:%M} UTC, {(until - now).days} days"
    return Finding(question=CERTIFICATE, answer=answer, claimed=None, detail=detail)


def _clocks(told: str | None, now: datetime) -> Finding:
    try:
        there = parsedate_to_datetime(told or "")
    except (ValueError, OverflowError):
        return Finding(question=CLOCKS, answer=Answer.UNKNOWN, claimed=None, detail="it does not say what time it is")
    there = there if there.tzinfo else there.replace(tzinfo=UTC)
    apart = there - now
    ahead = "ahead of" if apart > timedelta() else "behind"
    detail = f"the store's is {abs(apart.total_seconds()):.0f} s {ahead} the station's"
    answer = Answer.YES if abs(apart) <= _APART else Answer.NO
    return Finding(question=CLOCKS, answer=answer, claimed=None, detail=detail)
