"""AWS Signature Version 4 for S3, by botocore's `S3SigV4Auth`, at a time and over a payload digest that are given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dockd.errors import ConfigError
from dockd.stores.credentials import Credentials

_STAMP = "%Y%m%dT%H%M%SZ"


class Signer:
    """Signs requests for one region. Raises ConfigError at construction where the extra `s3` is not installed."""

    def __init__(self, region: str, *, service: str = "s3") -> None:
        try:
            from botocore.auth import S3SigV4Auth  # noqa: PLC0415  only who pushes to S3 has it
            from botocore.awsrequest import AWSRequest  # noqa: PLC0415  same
            from botocore.credentials import Credentials as Keys  # noqa: PLC0415  same
        except ImportError as error:
            problem = 'a store of kind "s3" needs the extra s3: pip install "dockd[s3]"'
            raise ConfigError("S3 requests cannot be signed", problems=(problem,)) from error
        self._auth: Any = S3SigV4Auth
        self._request: Any = AWSRequest
        self._keys: Any = Keys
        self._region = region
        self._service = service

    def sign(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        payload_sha256: str,
        credentials: Credentials,
        at: datetime,
    ) -> dict[str, str]:
        """The headers with those that make the request a signed one.

        `url` has to be percent-encoded as it will be sent. `payload_sha256` is in hex: the store compares the body
        with it, so that a damaged one is refused whatever else the store checks.
        """
        stamp = at.strftime(_STAMP)
        said = {**headers, "X-Amz-Date": stamp, "X-Amz-Content-SHA256": payload_sha256}
        if credentials.session_token:
            said["X-Amz-Security-Token"] = credentials.session_token
        request = self._request(method=method, url=url, headers=said)
        request.context["timestamp"] = stamp
        keys = self._keys(credentials.access_key, credentials.secret_key, credentials.session_token or None)
        auth = self._auth(keys, self._service, self._region)
        # Not `add_auth`: it takes its own time, and hashes the body on the event loop.
        signed = auth.signed_headers(auth.headers_to_sign(request))
        signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        said["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={signed}, Signature={signature}"
        )
        return said
