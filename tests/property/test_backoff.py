import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core.backoff import Backoff, Circuit, Pause
from dockd.core.transfer import Action, next_move

BACKOFF = Backoff()
draws = st.binary(min_size=6, max_size=6)


@given(st.integers(1, 10_000), draws)
def test_delay_stays_between_floor_and_ceiling(failures, drawn):
    delay_s = BACKOFF.delay_s(failures, lambda count: drawn)
    assert BACKOFF.floor_s <= delay_s <= min(BACKOFF.cap_s, 0.5 * 2.0 ** min(failures - 1, 40))


@given(st.integers(1, 30), draws, draws)
def test_delay_grows_with_the_draw(failures, first, second):
    low, high = sorted((first, second))
    assert BACKOFF.delay_s(failures, lambda _: low) <= BACKOFF.delay_s(failures, lambda _: high)


def test_no_delay_without_a_failure():
    with pytest.raises(ValueError, match="failed"):
        BACKOFF.delay_s(0, bytes)


@given(st.integers(1, 60), draws)
def test_hastening_leaves_at_most_the_first_ceiling(failures, drawn):
    pause = Pause()
    for _ in range(failures):
        pause = pause.after_failure(100.0, lambda count: drawn, BACKOFF)
    assert pause.hastened(BACKOFF).left_s(100.0) <= BACKOFF.first_s
    assert pause.hastened(BACKOFF).left_s(100.0) <= pause.left_s(100.0)


@given(st.floats(0, 3600), draws)
def test_what_the_store_asked_for_is_not_cut_short(asked_s, drawn):
    pause = Pause().after_failure(100.0, lambda count: drawn, BACKOFF, retry_after_s=asked_s)
    assert pause.left_s(100.0) >= asked_s - 1e-9
    assert pause.hastened(BACKOFF) == pause


@given(st.lists(st.sampled_from(["enter", "fail", "fail_probe", "succeed", "give_up", "hasten", "wait"])), draws)
def test_p09_an_open_circuit_lets_one_probe_through_and_always_another(steps, drawn):
    now_s, circuit = 0.0, Circuit()
    for step in steps:
        left_s = circuit.left_s(now_s)
        match step:
            case "enter" if left_s == 0.0:
                was_open = circuit.open
                circuit = circuit.entered()
                assert circuit.probing is was_open
                if was_open:
                    assert circuit.left_s(now_s) is None  # nobody beside the probe
            case "fail":
                circuit = circuit.after_failure(now_s, lambda count: drawn, BACKOFF)
            case "fail_probe" if circuit.probing:
                circuit = circuit.after_failure(now_s, lambda count: drawn, BACKOFF, probe=True)
                assert circuit.left_s(now_s) is not None
            case "succeed":
                circuit = circuit.after_success()
                assert circuit.left_s(now_s) == 0.0
            case "give_up":
                circuit = circuit.given_up()
            case "hasten":
                circuit = circuit.hastened(BACKOFF)
            case "wait" if left_s is not None:
                now_s += left_s
                assert circuit.left_s(now_s) == 0.0
            case _:
                pass
    assert circuit.probing or (circuit.left_s(now_s) or 0.0) <= BACKOFF.cap_s


def test_first_probe_comes_within_half_a_second_of_opening():
    circuit = Circuit()
    for _ in range(3):
        circuit = circuit.after_failure(0.0, lambda count: b"\xff" * count, BACKOFF)
    assert circuit.open
    assert circuit.left_s(0.0) <= 0.5
    for _ in range(50):  # those that were let through before do not lengthen the wait
        circuit = circuit.after_failure(0.0, lambda count: b"\xff" * count, BACKOFF)
    assert circuit.left_s(0.0) <= 0.5


@given(st.integers(0, 1 << 40), st.integers(-5, 1 << 41), st.data())
def test_p02_a_move_never_goes_back_to_zero_on_its_own(size, offset, data):
    acked = data.draw(st.integers(0, size))
    move = next_move(local_size=size, store_offset=offset, acked=acked)
    assert move.offset == offset  # the store's word, never our own idea
    assert (move.action is Action.CONFIRM) == (offset == size)
    assert (move.action is Action.HOLD) == (not 0 <= offset <= size)
