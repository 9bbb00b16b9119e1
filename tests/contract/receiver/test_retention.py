"""How long the receiver promises to keep what: by rule to stations that know rules, by date to those that do not."""

import json
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockd.core import canonical, extensions, receipts, retention, sshsig
from dockd.core.retention import RecordedFrom, Terms, Until, usual_terms
from dockd.model import Category
from dockd.receiver.problems import Kind
from dockd.receiver.promises import promises_kept

STORE = "0190a5c0-0000-4000-8000-00000000000a"


DAY = timedelta(days=1)
ACCEPTS = {"receipt": [1, 2, 3, 9], "holding": [1, 2, 3], "policy": [1], "extension": [1], "letter": [1]}
PLAIN = canonical.digest(b"the same recording")


def usual(**more):
    return usual_terms() | more


class Asking:
    """A station that knows rules."""

    def __init__(self, receiver, station):
        self.receiver, self.station = receiver, station

    async def log_in(self):
        await self.station.log_in(ACCEPTS)
        return self

    @property
    def policy(self):
        signed = sshsig.signed_from_json(self.station.session["policy"])
        return retention.verify_policy(signed, store_key=self.receiver.key.public, store=STORE)

    def _about(self, clip):
        about = {"store_key": self.receiver.key.public, "store": STORE, "station": self.station.id}
        return about | {"manifest": clip.payload}

    async def receipt(self, clip, *, is_sent=False):
        if not is_sent:
            await self.station.sent(clip)
        answer = await self.station.receipt(clip)
        assert answer.status_code == 200, answer.text
        return receipts.verify_receipt(sshsig.signed_from_json(answer.json()), **self._about(clip))

    async def holding(self, clip):
        nonce = secrets.token_bytes(32)
        answer = await self.station.holding(clip, nonce)
        assert answer.status_code == 200, answer.text
        return receipts.verify_holding(sshsig.signed_from_json(answer.json()), **self._about(clip), nonce=nonce)

    async def ask(self, clip, receipt, after=0):
        body = {"type": "extension-request", "v": 1, "receipt": receipt.payload_digest, "after": after}
        place = f"/acquisitions/{clip.acquisition}/extension"
        return await self.station.http.post(place, content=canonical.encode(body))

    def verify(self, answer, clip, receipt, previous=None):
        assert answer.status_code == 200, answer.text
        return extensions.verify_extension(
            sshsig.signed_from_json(answer.json()),
            store_key=self.receiver.key.public,
            receipt=receipt,
            manifest=clip.payload,
            previous=previous,
        )


@pytest.fixture
async def asking(receiver, station):
    return await Asking(receiver, station).log_in()


async def mend(receiver, *askings, **categories):
    await receiver.stop()
    await receiver.start(replace(receiver.settings, categories=usual(**categories)))
    for one in askings:
        await one.log_in()


def start(days):
    return (datetime.now(UTC) - days * DAY).replace(microsecond=0)


# --- sessions


async def test_a_session_chooses_the_highest_versions_and_brings_the_policy(asking):
    said = asking.station.session
    assert (said["v"], said["versions"]) == (2, {"receipt": 3, "holding": 3, "policy": 1, "extension": 1})
    assert (asking.policy.policy_seq, asking.policy.categories) == (1, usual())


async def test_a_station_of_before_gets_the_answers_of_before(station):
    assert set((await station.challenge()).json()) == {"type", "v", "store", "challenge", "expires"}
    await station.log_in()
    assert set(station.session) == {"type", "v", "token", "expires"}
    assert station.session["v"] == 1
    _, signed = await station.stored(station.clip(recorded_at=start(0)))
    receipt = json.loads(signed.payload)
    assert receipt["v"] == 1
    assert canonical.parse_time(receipt["retention_until"]) - canonical.parse_time(receipt["at"]) == 32 * DAY


async def test_what_is_no_list_of_versions_is_refused(station, problem):
    for wrong in ({"receipt": "3"}, {"receipt": []}, [], 3):
        problem(await station.challenge(accepts=wrong), Kind.MALFORMED)
    given = (await station.challenge()).json()["challenge"]
    for changes in ({"v": 2}, {"v": 1, "accepts": ACCEPTS}, {"v": 2, "accepts": {"receipt": [0]}}, {"v": 3}):
        body = station.envelope(station.statement(given, **changes), sshsig.SESSION)
        problem(await station.http.post("/session", content=body), Kind.MALFORMED)


async def test_a_station_that_knows_no_rules_gets_none(station):
    await station.log_in({"receipt": [1, 2], "policy": [1]})
    assert station.session["versions"] == {"receipt": 2, "policy": 1}
    _, signed = await station.stored(station.clip())
    assert json.loads(signed.payload)["v"] == 1


async def test_the_policy_is_numbered_and_each_station_hears_of_a_change(receiver, asking, problem):
    await receiver.stop()
    await receiver.start()
    clip = asking.station.clip()
    assert (await asking.station.announce(clip)).status_code == 201  # nothing changed, and the session goes on
    await receiver.stop()
    await receiver.start(replace(receiver.settings, categories=usual(Training=Terms(recorded_days=10))))
    problem(await asking.station.announce(clip), Kind.NO_TOKEN)
    await asking.log_in()
    assert asking.policy.policy_seq == 2
    assert asking.policy.categories["Training"] == Terms(recorded_days=10)
    await mend(receiver, asking)
    assert asking.policy.policy_seq == 3


# --- receipts and holding statements


@pytest.mark.parametrize(("days", "late"), [(0, False), (15, False), (20, True), (100, True), (-2, False)])
async def test_a_receipt_says_its_rule_and_when_the_clip_may_go(receiver, asking, days, late):
    clip = asking.station.clip(recorded_at=start(days))
    receipt = await asking.receipt(clip)
    receipts.check_rule(receipt, asking.policy)
    believed = 0 <= days <= 90
    assert (receipt.rule.recorded_from is RecordedFrom.MANIFEST) == believed
    begun = start(days) if believed else receipt.at
    assert abs(receipt.kept_until - max(begun + 30 * DAY, receipt.at + 14 * DAY)) < timedelta(minutes=1)
    assert receipt.delete_by == receipt.kept_until + DAY
    (listed,) = promises_kept(receiver.settings.directory)
    assert (listed.is_late, listed.keep_until, listed.category) == (late, receipt.kept_until, "none")


async def test_a_receipt_is_the_same_whatever_a_later_session_accepts(asking):
    clip = asking.station.clip()
    _, first = await asking.station.stored(clip)
    await asking.station.log_in()
    assert sshsig.signed_from_json((await asking.station.receipt(clip)).json()) == first
    assert json.loads(sshsig.signed_from_json((await asking.station.holding(clip)).json()).payload)["v"] == 1


async def test_a_holding_statement_says_the_rule_of_its_receipt(asking):
    clip = asking.station.clip(recorded_at=start(3))
    receipt, holding = await asking.receipt(clip), await asking.holding(clip)
    assert (holding.rule, holding.kept_until) == (receipt.rule, receipt.kept_until)


async def test_p01_the_floor_of_what_a_person_ends_moves_on_and_never_back(receiver, asking):
    clip = asking.station.clip(recorded_at=start(1), category=Category.EVIDENCE)
    receipt = await asking.receipt(clip)
    assert (receipt.rule.until, receipt.delete_by) == (Until.ENDED, None)
    assert (await asking.holding(clip)).kept_until == receipt.kept_until
    receiver.clock.ahead = 400 * DAY
    await asking.log_in()
    holding = await asking.holding(clip)
    assert holding.kept_until - holding.at == 14 * DAY
    (listed,) = promises_kept(receiver.settings.directory)
    assert listed.keep_until >= holding.kept_until
    assert listed.category == "evidence"
    receiver.clock.ahead = 300 * DAY
    await asking.log_in()
    assert extensions.kept_until(receipt, None, await asking.holding(clip)) > receipt.kept_until


async def test_an_old_station_is_told_a_floor_that_moves_as_a_date(receiver, station):
    clip = station.clip(category=Category.EVIDENCE)
    await station.stored(clip)
    receiver.clock.ahead = 400 * DAY
    await station.log_in()
    said = json.loads(sshsig.signed_from_json((await station.holding(clip)).json()).payload)
    assert said["v"] == 1
    assert canonical.parse_time(said["retention_until"]) - canonical.parse_time(said["at"]) == 14 * DAY


# --- extensions


async def test_a_mended_policy_extends_receipts_and_no_further(receiver, asking, problem):
    await mend(receiver, asking, none=Terms(recorded_days=20))
    clip = asking.station.clip(recorded_at=start(1))
    receipt = await asking.receipt(clip)
    problem(await asking.ask(clip, receipt), Kind.NOT_LONGER)
    await mend(receiver, asking)
    extension = asking.verify(await asking.ask(clip, receipt), clip, receipt)
    assert extension.kept_until - receipt.kept_until == 10 * DAY
    assert extension.rule.policy == asking.policy.payload_digest
    problem(await asking.ask(clip, receipt, 1), Kind.NOT_LONGER)
    assert (await asking.holding(clip)).kept_until == extension.kept_until
    (listed,) = promises_kept(receiver.settings.directory)
    assert listed.keep_until == extension.kept_until


async def test_an_extension_asked_for_again_is_the_same_and_the_next_follows_it(receiver, asking):
    await mend(receiver, asking, none=Terms(recorded_days=20))
    clip = asking.station.clip(recorded_at=start(1))
    receipt = await asking.receipt(clip)
    await mend(receiver, asking)
    first = await asking.ask(clip, receipt)
    await mend(receiver, asking, none=Terms(recorded_days=40))
    assert (await asking.ask(clip, receipt)).content == first.content
    one = asking.verify(first, clip, receipt)
    two = asking.verify(await asking.ask(clip, receipt, 1), clip, receipt, one)
    assert (two.n, two.kept_until - one.kept_until) == (2, 10 * DAY)


async def test_a_receipt_of_an_old_session_is_extended_too(receiver, station, problem):
    clip = station.clip(recorded_at=start(1))
    await mend(receiver, none=Terms(recorded_days=20))
    await station.log_in()
    asking = Asking(receiver, station)
    receipt = await asking.receipt(clip)
    assert receipt.rule is None
    await mend(receiver, asking, none=Terms(recorded_days=60))
    extension = asking.verify(await asking.ask(clip, receipt), clip, receipt)
    assert extension.kept_until > receipt.kept_until


async def test_p01_a_promise_that_is_over_is_not_extended(receiver, asking, problem):
    clip = asking.station.clip(recorded_at=start(1))
    receipt = await asking.receipt(clip)
    receiver.clock.ahead = 25 * DAY
    await mend(receiver, asking, none=Terms(recorded_days=60))
    problem(await asking.ask(clip, receipt), Kind.PROMISE_OVER)


async def test_p01_no_extension_without_the_object_or_the_receipt(receiver, asking, problem):
    clip = asking.station.clip()
    await asking.station.sent(clip)
    body = {"type": "extension-request", "v": 1, "receipt": PLAIN, "after": 0}
    place = f"/acquisitions/{clip.acquisition}/extension"
    problem(await asking.station.http.post(place, content=canonical.encode(body)), Kind.INCOMPLETE)
    receipt = await asking.receipt(clip, is_sent=True)
    problem(await asking.station.http.post(place, content=canonical.encode(body)), Kind.NOT_FOUND)
    problem(await asking.ask(clip, receipt, 1), Kind.NOT_FOUND)
    problem(await asking.station.http.post(place, content=canonical.encode(body | {"after": -1})), Kind.MALFORMED)
    (receiver.settings.directory / "acquisitions" / asking.station.id / clip.acquisition / "clip.age").unlink()
    problem(await asking.ask(clip, receipt), Kind.OBJECT_LOST)


# --- shared objects


async def test_each_acquisition_says_whether_the_bytes_stay_for_another(receiver, asking):
    other = await Asking(receiver, await receiver.station()).log_in()
    receiver.lookups[asking.station.id] = frozenset({other.station.id})
    theirs = other.station.clip(plaintext_digest=PLAIN, recorded_at=start(20))
    await other.receipt(theirs)
    receiver.clock.ahead = 10 * DAY
    await asking.log_in()
    clip = asking.station.clip(plaintext_digest=PLAIN, recorded_at=start(20))
    await asking.station.announced(clip)
    body = {"type": "share-request", "v": 1, "manifest": theirs.digest}
    place = f"/acquisitions/{clip.acquisition}/share"
    assert (await asking.station.http.post(place, content=canonical.encode(body))).status_code == 200
    receipt = await asking.receipt(clip, is_sent=True)
    assert receipt.shared.acquisition == theirs.acquisition
    assert receipt.kept_until - receipt.at == 14 * DAY
    first, second = promises_kept(receiver.settings.directory)
    assert (first.acquisition, first.stays_for_another) == (theirs.acquisition, True)
    assert (second.acquisition, second.stays_for_another) == (clip.acquisition, False)
    assert second.held == first.held == (other.station.id, theirs.acquisition)
