"""Connections to the receiver answer at once."""

import socket
from types import SimpleNamespace

from dockd.receiver.serve import _listen


def test_no_answer_waits_for_the_acknowledgement_of_its_first_half():
    with (
        _listen(SimpleNamespace(listen_host="127.0.0.1", listen_port=0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
