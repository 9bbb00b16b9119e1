"""The three ways of a USB still image interface, as the rest of MTP knows them."""

from __future__ import annotations

from typing import Protocol


class Pipe(Protocol):
    """An MTP interface, claimed for this program alone. OSErrors pass through: ENODEV once the device is gone.

    ETIMEDOUT where it did not answer in time; EPIPE, EPROTO, EILSEQ, EOVERFLOW where a transfer failed.
    """

    packet_bytes: int  # of the bulk endpoint that the device sends on

    def send(self, content: bytes) -> None:
        """One bulk transfer to the device."""

    def receive(self, size: int) -> memoryview:
        """One bulk transfer from the device, ended by a short packet or after `size` bytes, which are whole packets.

        It may bring less at once. Good until the next call.
        """

    def descriptor(self) -> bytes:
        """The device descriptor, asked of the device anew: 18 bytes (USB 2.0, 9.6.1)."""

    def serial(self) -> str:
        """The serial number, asked of the device anew; "" where it states none."""

    def restart(self) -> None:
        """After a transfer that failed: the class request Device Reset (USB still image class, 5.2.3), stalls cleared.

        What was still on its way is dropped. All sessions are closed then.
        """

    def close(self) -> None:
        """Give the interface back. Idempotent."""
