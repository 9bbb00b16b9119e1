"""The canary: a sealed text that every new key has to open before anybody may seal evidence to it."""

from __future__ import annotations

from collections.abc import Mapping

from dockd.core.sealing import Identity, Opener, Sealer, sealed_size
from dockd.errors import VerificationFailed
from dockd.model import Entropy

TEXT = b"dockd canary: whoever reads this can open what is sealed to the evidence authority\n"


def try_keys(identities: Mapping[str, Identity], random: Entropy) -> bytes:
    """Seal the canary to all `identities` and open it with each one alone; returns the sealed canary.

    Raises VerificationFailed, naming the key, where one does not open it: then none of them may be used.
    """
    sealer = Sealer([identity.recipient for identity in identities.values()], random)
    sealed = sealer.header() + bytes(sealer.seal(memoryview(TEXT), final=True))
    if len(sealed) != sealed_size(len(TEXT), len(identities)):
        raise VerificationFailed(f"the sealed canary has {len(sealed)} bytes, which cannot be")
    for name, identity in identities.items():
        opener = Opener([identity])
        try:
            opened = bytes(opener.feed(sealed)) + bytes(opener.finish())
        except VerificationFailed as error:
            raise VerificationFailed(f"the {name} key does not open the canary: {error}") from error
        if opened != TEXT:
            raise VerificationFailed(f"the {name} key opens something else than the canary")
    return sealed
