"""Which stores have to confirm: counted by places, never by stores that are not final, never by nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core.policy import CountOf, EraseWhen, PolicyStore, StorePolicy


def store(name, **changes):
    return PolicyStore(store=f"id-{name}", name=name, **changes)


ARCHIVE, COURT, VAULT = store("archive"), store("court"), store("vault")
EDGE = store("edge", final=False)
SPARE = store("spare", final=False, fallback_for="id-archive")
FINAL_SPARE = store("spare", final=True, fallback_for="id-archive")


def of(*names, count):
    return CountOf(of=tuple(f"id-{name}" for name in names), count=count)


def ids(*names):
    return {f"id-{name}" for name in names}


CASES = {
    "one": ([ARCHIVE], EraseWhen.ALL, [["archive"]], [[], ["edge"]]),
    "all": ([ARCHIVE, COURT, EDGE], EraseWhen.ALL, [["archive", "court"]], [["archive"], ["archive", "edge"]]),
    "any": ([ARCHIVE, COURT, EDGE], EraseWhen.ANY, [["archive"], ["court"]], [[], ["edge"]]),
    "2 of 3": (
        [ARCHIVE, COURT, VAULT],
        of("archive", "court", "vault", count=2),
        [["archive", "vault"], ["archive", "court", "vault"]],
        [["archive"], ["vault"]],
    ),
    "1 of 2 that are listed": (
        [ARCHIVE, COURT, VAULT],
        of("archive", "court", count=1),
        [["archive"], ["court"]],
        [["vault"]],
    ),
    "a fallback": ([ARCHIVE, SPARE], EraseWhen.ALL, [["archive"], ["archive", "spare"]], [["spare"]]),
    "a fallback under any": ([ARCHIVE, SPARE], EraseWhen.ANY, [["archive"]], [["spare"]]),
    "a fallback that is final": ([ARCHIVE, FINAL_SPARE], EraseWhen.ALL, [["archive"], ["spare"]], [[]]),
    "a place counts once": (
        [ARCHIVE, FINAL_SPARE, COURT],
        of("archive", "court", count=2),
        [["spare", "court"], ["archive", "court"]],
        [["archive", "spare"]],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_p01_a_policy_is_satisfied_by_what_it_names_alone(name):
    stores, when, enough, too_little = CASES[name]
    policy = StorePolicy(stores, when)
    for names in enough:
        assert policy.satisfied(ids(*names))
        assert policy.missing(ids(*names)) == ()
    for names in too_little:
        assert not policy.satisfied(ids(*names))
        assert policy.missing(ids(*names))


WRONG = {
    "no store at all": ([], EraseWhen.ALL, "no store is final"),
    "none that counts": ([EDGE], EraseWhen.ANY, "no store is final"),
    "a fallback alone counts": ([EDGE, store("f", fallback_for="id-edge")], EraseWhen.ANY, "for which it stands"),
    "an unknown store": ([ARCHIVE], of("court", count=1), "id-court cannot count"),
    "one that is not final": ([ARCHIVE, EDGE], of("edge", count=1), "edge cannot count"),
    "a fallback in the list": ([ARCHIVE, FINAL_SPARE], of("spare", count=1), "spare cannot count"),
    "more than there are": ([ARCHIVE], of("archive", count=2), "2 of 1"),
    "none": ([ARCHIVE], of("archive", count=0), "0 of 1"),
    "an empty list": ([ARCHIVE], CountOf(of=(), count=0), "0 of 0"),
    "listed twice": ([ARCHIVE, COURT], of("archive", "archive", count=2), "twice in the list"),
    "an id twice": ([ARCHIVE, PolicyStore(store="id-archive", name="b")], EraseWhen.ANY, "stands twice"),
    "a name twice": ([ARCHIVE, PolicyStore(store="id-b", name="archive")], EraseWhen.ANY, "stands twice"),
    "a fallback for nothing": ([ARCHIVE, store("s", final=False, fallback_for="x")], EraseWhen.ALL, "no other store"),
    "a fallback for itself": ([ARCHIVE, store("s", final=False, fallback_for="id-s")], EraseWhen.ALL, "no other store"),
    "a fallback of a fallback": (
        [ARCHIVE, SPARE, store("s", final=False, fallback_for="id-spare")],
        EraseWhen.ALL,
        "fallback itself",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_p01_a_policy_that_too_little_or_nothing_could_satisfy_is_refused(name):
    stores, when, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence):
        StorePolicy(stores, when)


def test_a_policy_in_words():
    assert StorePolicy([ARCHIVE, COURT, EDGE]).sentence() == "archive, court"
    assert StorePolicy([ARCHIVE, COURT], EraseWhen.ANY).sentence() == "1 of archive, court"
    policy = StorePolicy([ARCHIVE, COURT, VAULT], of("archive", "vault", count=2))
    assert policy.sentence() == "archive, vault"
    assert policy.missing(ids("court", "vault")) == ("archive",)
    assert policy.name("id-vault") == "vault"
    assert policy.name("x") == "x"
    assert StorePolicy([ARCHIVE, SPARE]).primaries == ids("archive")


@st.composite
def policies(draw):
    count = draw(st.integers(1, 5))
    made = [store(f"s{n}", final=draw(st.booleans())) for n in range(count)]
    for number, primary in enumerate(list(made)):
        if draw(st.booleans()):
            final = draw(st.booleans()) and primary.final
            made.append(store(f"f{number}", final=final, fallback_for=primary.store))
    final = [one.store for one in made if one.final and one.fallback_for is None]
    when = draw(st.sampled_from([EraseWhen.ALL, EraseWhen.ANY, None]))
    if when is None and final:
        chosen = draw(st.lists(st.sampled_from(final), min_size=1, unique=True))
        when = CountOf(of=tuple(chosen), count=draw(st.integers(1, len(chosen))))
    try:
        return StorePolicy(made, when or EraseWhen.ALL)
    except ValueError:
        assert not final
        return None


@settings(deadline=None)
@given(policy=policies(), choice=st.sets(st.integers(0, 9)), more=st.sets(st.integers(0, 9)))
def test_p01_what_satisfies_a_policy(policy, choice, more):
    if policy is None:
        return
    every = [one.store for one in policy.stores]
    some = {every[n] for n in choice if n < len(every)}
    others = some | {every[n] for n in more if n < len(every)}
    assert not policy.satisfied(())
    assert policy.satisfied(every)
    if policy.satisfied(some):
        assert policy.satisfied(others)  # more confirmations never hurt
    assert policy.satisfied(some) == (not policy.missing(some))
    counted = {one for one in some if policy.counts(one)}
    assert policy.satisfied(counted) == policy.satisfied(some)  # others change nothing
    assert all(policy.store(one).final for one in counted)
    assert policy.satisfied({*some, "a stranger"}) == policy.satisfied(some)
    assert policy.attainable(some) == policy.satisfied(set(every) - some)
    if policy.satisfied(some):
        assert len(counted) >= policy.needed
