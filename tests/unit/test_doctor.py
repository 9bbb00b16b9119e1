"""`dockd doctor`: what is found on the way to a store, what it means, and how it is shown."""

import asyncio
import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from contract.evidence import MachineClock, certificate

from dockd.cli import doctor as command
from dockd.core.findings import Answer, Finding, Question
from dockd.core.policy import PolicyStore
from dockd.errors import StoreUnreachable, UploadLost
from dockd.station.doctor import report, to_json
from dockd.station.outlet import Keeping, Outlet
from dockd.stores import receiver_probe, way
from dockd.stores.memory_objects import MemoryObjects
from dockd.stores.probing import from_text, merged, to_records
from dockd.stores.wire import Timeouts

ARCHIVE = PolicyStore(store="00000000-0000-4000-8000-000000000001", name="archive")
VAULT = PolicyStore(
    store="00000000-0000-4000-8000-000000000002",
    name="vault",
    min_retention=timedelta(days=31),
    place="s3 https://s3.example.org:443/bodycam",
)
TUS = PolicyStore(
    store="00000000-0000-4000-8000-000000000003", name="tus", place="tus https://tus.example.org:443/files"
)


def found(question, answer=Answer.YES, claimed=None):
    return Finding(question=question, answer=answer, claimed=claimed, detail="so it was seen")


REACHED = found(way.REACHED)
SUMS = (found(Question.WRONG_CHECKSUM, claimed=True), found(Question.CHECKSUM_BACK, claimed=True))
READ = found(Question.READ_BACK)
LOCKED = found(Question.LOCKED, claimed=True)
CANNOT = "its word is asked for, and cannot be had"
UNTRIED = "its word is asked for, and was not tried yet"


# --- what it means


@pytest.mark.parametrize(
    ("store", "findings", "words", "wrong"),
    [
        (ARCHIVE, (REACHED, found(receiver_probe.SESSION)), ["by its signed receipt"], []),
        (VAULT, (*SUMS, READ, LOCKED), ["by the store's own SHA-256", "31 days or more"], []),
        (VAULT, (READ, LOCKED), ["by reading all of it back", "31 days or more"], []),
        (
            VAULT,
            (*SUMS, READ, found(Question.LOCKED, Answer.NO)),
            ["own SHA-256", "No lock was seen to hold"],
            [CANNOT],
        ),
        (VAULT, (*SUMS, READ), ["own SHA-256", "Its lock was not tried yet"], [UNTRIED]),
        (VAULT, (*SUMS, READ, found(Question.LOCKED, Answer.UNKNOWN)), ["own SHA-256", "was not tried yet"], [UNTRIED]),
        (TUS, (*SUMS,), ["own SHA-256", "Not tried yet", "Nothing makes"], []),
        (TUS, (READ,), ["by reading all of it back", "Nothing makes it keep a clip"], []),
        (
            TUS,
            (found(Question.READ_BACK, Answer.NO),),
            ["confirms nothing", "Nothing makes"],
            [CANNOT],
        ),
        (
            VAULT,
            (found(Question.WRONG_CHECKSUM, Answer.NO, claimed=True), READ, LOCKED),
            ["by reading all of it back", "31 days"],
            ["it claims what it does not do: is a wrong checksum refused? no"],
        ),
        (ARCHIVE, (found(way.REACHED, Answer.NO),), ["while it is out of reach"], ["can it be reached"]),
        (
            ARCHIVE,
            (REACHED, found(way.CLOCKS, Answer.NO)),
            ["signed receipt"],
            ["do its clock and the station's agree"],
        ),
        (TUS, (found(Question.RESUME, Answer.UNKNOWN),), ["while it is out of reach"], []),
        (TUS, (REACHED, found(Question.READ_BACK, Answer.UNKNOWN)), ["reading all", "Not tried yet", "Nothing"], []),
    ],
)
def test_what_was_found_means_something_for_erasing(store, findings, words, wrong):
    one = report(store, findings, ())
    assert len(one.meaning) == len(words)
    assert all(part in sentence for part, sentence in zip(words, one.meaning, strict=True))
    assert len(one.wrong) == len(wrong)
    assert all(sentence.startswith(part) for part, sentence in zip(wrong, one.wrong, strict=True))
    assert one.out_of_reach == ("out of reach" in words[0])


def test_what_counts_for_nothing_is_not_wrong_for_confirming_nothing():
    spare = PolicyStore(store=TUS.store, name="tus", place=TUS.place, final=False)
    one = report(spare, (found(Question.READ_BACK, Answer.NO),), ())
    assert one.wrong == ()
    assert "not final" in one.meaning[-1]


def test_what_could_not_be_tried_now_is_as_it_is_known():
    one = report(VAULT, (found(Question.LOCKED, Answer.UNKNOWN), *SUMS), (LOCKED,))
    assert one.wrong == ()


def test_findings_survive_the_journal_and_newer_ones_go_before():
    before = (*SUMS, LOCKED)
    assert from_text(json.dumps(to_records(before))) == before
    now = (found(Question.LOCKED, Answer.UNKNOWN), found(Question.WRONG_CHECKSUM, Answer.NO))
    assert merged(before, now) == (LOCKED, now[1])


# --- on the way


@pytest.fixture
async def server(tmp_path):
    """Something that speaks HTTP over TLS; tells the time that the test wants."""
    chain, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    said = {"date": format_datetime(datetime.now(UTC), usegmt=True)}

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        date = f"Date: {said['date']}\r\n" if said["date"] else ""
        writer.write(f"HTTP/1.1 404 Not Found\r\n{date}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    yield f"https://127.0.0.1:{port}/files", chain, said
    listening.close()
    await listening.wait_closed()


async def looked(url, chain):
    return {
        one.question: one
        for one in await way.look(url, clock=MachineClock(), timeouts=Timeouts(connect_s=20), ca_file=chain)
    }


async def test_certificate_and_clock_are_looked_at(server):
    url, chain, said = server
    seen = await looked(url, chain)
    assert {question: one.answer for question, one in seen.items()} == {
        way.REACHED: Answer.YES,
        way.CERTIFICATE: Answer.YES,
        way.CLOCKS: Answer.YES,
    }
    assert "0 days" in seen[way.CERTIFICATE].detail
    for date, answer in (
        (format_datetime(datetime.now(UTC) - timedelta(minutes=3), usegmt=True), Answer.NO),
        ("yesterday", Answer.UNKNOWN),
        ("", Answer.UNKNOWN),
    ):
        said["date"] = date
        assert (await looked(url, chain))[way.CLOCKS].answer is answer


async def test_a_certificate_of_somebody_else_is_no_way(server, tmp_path):
    url, _, _ = server
    (tmp_path / "other").mkdir()
    other, _ = certificate(tmp_path / "other")
    (seen,) = (await looked(url, other)).values()
    assert (seen.question, seen.answer) == (way.REACHED, Answer.NO)
    assert "certificate" in seen.detail.lower()


class Receiver:
    """Answers as the test wants."""

    def __init__(self, *, size=7, holding=None):
        self.size, self.held = size, holding

    async def witnessed_size(self):
        if isinstance(self.size, Exception):
            raise self.size
        return self.size

    async def holding(self, acquisition, nonce):
        assert len(nonce) == 32
        if self.held is not None:
            raise self.held
        return b""


@pytest.mark.parametrize(
    ("receiver", "answers"),
    [
        (Receiver(holding=UploadLost("no such acquisition")), [Answer.YES, Answer.YES]),
        (Receiver(), [Answer.YES, Answer.NO]),
        (Receiver(holding=StoreUnreachable("away")), [Answer.YES, Answer.UNKNOWN]),
        (Receiver(size=StoreUnreachable("not enrolled")), [Answer.NO]),
    ],
)
async def test_a_receiver_is_asked_for_a_session_and_for_what_never_was(receiver, answers):
    seen = await receiver_probe.probe(receiver, random=bytes)
    assert [one.answer for one in seen] == answers


# --- how it is shown


def test_the_table_fits_a_terminal():
    one = report(VAULT, (REACHED, *SUMS, READ, found(Question.LOCKED, Answer.UNKNOWN)), ())
    shown = command.render(to_json(one), 80)
    lines = shown.splitlines()
    assert lines[0] == "vault: s3 https://s3.example.org:443/bodycam"
    assert lines[2] == "  claims does  question"
    assert "  yes    yes   is a wrong checksum refused?" in lines
    assert "  -      ?     is a locked object undeletable?" in lines
    assert max(map(len, lines)) <= 80
    assert "  WRONG: its word is asked for, and was not tried yet: clips stay on their" in lines


def test_an_outlet_without_trials_is_only_looked_at():
    outlet = Outlet(way=Keeping(port=MemoryObjects(store="cloud", clock=MachineClock())))
    assert outlet.looked_at is None
    assert outlet.keeping.probing is None
