"""The part of the small world that is about cameras that moved: what another station, which is trusted, has brought."""

from __future__ import annotations

import dataclasses
import uuid

from property.station_world import Kept, Lodged, digest

from dockd.core import sshsig
from dockd.core.lifecycle import DeliveryEvent, DeliveryState
from dockd.core.manifest import encode
from dockd.core.sshsig import SigningKey
from dockd.core.twins import VerifiedTwin, verify_twin
from dockd.errors import VerificationFailed
from dockd.model import Acquisition, SignedBytes

OTHER = str(uuid.UUID(int=3))
OTHER_KEY, STRANGER_KEY = SigningKey.generate(), SigningKey.generate()
RIGHT = "right"
WRONG = ("forged", "camera", "plaintext", "recipients", "role")


class Twins:
    """Mixed into the world."""

    def __init__(self) -> None:
        self.lodged: list[Lodged] = []  # at the store that signs
        self.twins: dict[str, SignedBytes] = {}  # what the journal has of them, by this station's acquisition

    def bring(self, row: Acquisition, wrong: str) -> bool:
        """Another station has brought the clip before: RIGHT, or with something `wrong`, and then another recording."""
        if row.acquisition not in self.spool:
            return False
        own = self.manifests[row.acquisition]
        content = self.spool[row.acquisition] if wrong == RIGHT else self._number()
        name = str(uuid.UUID(int=(0x019 << 116) | (7 << 76) | (2 << 62) | self._number()))
        changes = {
            "camera": {"camera": dataclasses.replace(own.camera, serial="another")},
            "plaintext": {"plaintext_digest": digest("plain", content)},
            "recipients": {"recipients": ("sha256:" + "9" * 64,)},
            "role": {"role": "sidecar"},
        }.get(wrong, {})
        sealed = {
            "sealed_digest": digest("sealed", name, content),
            "nonce": digest(name)[-32:].encode(),
        }
        payload = encode(dataclasses.replace(own, station=OTHER, acquisition=name, **sealed, **changes))
        key = STRANGER_KEY if wrong == "forged" else OTHER_KEY
        signed = SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.MANIFEST, payload))
        self.lodged.append(Lodged(signed, content))
        return True

    def share(self, row: Acquisition) -> bool:
        """As stages.sharing does it, at a store that shows and shares whatever it has."""
        name, kept = row.acquisition, self.store.kept.get(row.acquisition)
        is_registered = self.deliveries.get(name, {}).get(self.archive) is DeliveryState.REGISTERED
        if not is_registered or row.reread is None or row.contested or kept is None or kept.receipt is not None:
            return False
        for number, lodged in enumerate(self.lodged):
            self.twins[name] = lodged.signed
            if self.twin(name) is not None:
                kept.other = number
                self._deliver(row, self.archive, DeliveryEvent.SHARED)
                return True
        self.twins.pop(name, None)
        return False

    def lose_lodged(self, which: int) -> bool:
        """The store loses what the other station brought."""
        self.lodged[which % len(self.lodged)].whole = False
        self.lied = True
        return True

    def twin(self, name: str) -> VerifiedTwin | None:
        """The twin that the journal has, believed anew."""
        if name not in self.twins:
            return None
        try:
            return verify_twin(self.twins[name], trusted={OTHER: OTHER_KEY.public}, own=self.manifests[name])
        except VerificationFailed:
            return None

    def held(self, kept: Kept | None) -> int | None:
        """The content that the store holds for an acquisition; None where it is not whole."""
        if kept is None:
            return None
        if kept.other is not None:
            lodged = self.lodged[kept.other]
            return lodged.content if lodged.whole else None
        return kept.content if kept.whole else None

    def others_manifest(self, kept: Kept) -> bytes | None:
        """Of the station whose object it is, where it is another's."""
        return None if kept.other is None else self.lodged[kept.other].signed.payload
