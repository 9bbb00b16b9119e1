"""nginx before a server: TLS ends there; one door holds bodies back until they are whole, another passes them on.

A third door has nginx's default limit of 1 MiB for a body, as a proxy has that nobody set up for uploads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from contract.evidence import certificate
from servers.programs import Servers, answers, free_ports, program

_USER = "user root;" if os.geteuid() == 0 else ""  # else its workers cannot write into the test's directory
_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log notice;
events {{ worker_connections 512; }}
http {{
    log_format counted '$request_method $request_uri $status $request_length';
    access_log {directory}/requests counted;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/answers;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {directory}/tls.crt;
    ssl_certificate_key {directory}/tls.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-Proto https;
    proxy_read_timeout 300s;
    proxy_send_timeout 300s;
{doors}
}}
"""
_DOOR = """
    server {{
        listen 127.0.0.1:{port} ssl;
        location / {{
            client_max_body_size {limit};
            proxy_request_buffering {buffering};
            proxy_pass {target};
            {more}
        }}
    }}
"""


class Request(NamedTuple):
    """One request as nginx logged it, also where it was cut."""

    method: str
    path: str
    status: str
    size: str  # in bytes: its head, and what came of its body


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The addresses of one nginx, and the authority that its certificate is of."""

    buffering: str
    passing: str
    limited: str
    ca_file: Path
    servers: Servers

    def requests(self) -> list[Request]:
        """What ended by now, in the order of ending."""
        lines = (self.servers.directory / "requests").read_text().splitlines(keepends=True)
        return [Request(*line.split()) for line in lines if line.endswith("\n")]


@contextmanager
def doors(target: str, ports: list[int] | None = None, *, more: str = "") -> Iterator[Doors]:
    """An nginx before `target`, "http://127.0.0.1:PORT" or https; at these three ports, where they are given.

    `more`: what else its configuration says of every request.
    """
    nginx = program("nginx", "apt-get install nginx")
    chosen = ports or free_ports(3)
    servers = Servers("nginx")
    try:
        certificate(servers.directory)
        kinds = (("0", "on"), ("0", "off"), ("1m", "off"))
        text = "".join(
            _DOOR.format(port=port, limit=limit, buffering=buffering, target=_origin(target), more=more)
            for port, (limit, buffering) in zip(chosen, kinds, strict=True)
        )
        (servers.directory / "nginx.conf").write_text(
            _CONFIGURATION.format(directory=servers.directory, doors=text, user=_USER)
        )
        servers.start("nginx", [nginx, "-p", servers.directory, "-c", servers.directory / "nginx.conf"])
        servers.wait("nginx ready", lambda: all(answers(port) for port in chosen))
        urls = [f"https://127.0.0.1:{port}" for port in chosen]
        yield Doors(
            buffering=urls[0],
            passing=urls[1],
            limited=urls[2],
            ca_file=servers.directory / "tls.crt",
            servers=servers,
        )
    finally:
        servers.close()


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
