"""The lifecycle's table as a Promela model for Spin: 2 cameras with 2 clips each, 2 stores, power cuts, bad luck.

The transitions are those of `core.lifecycle.ACQUISITION` and nothing else. What is written here by hand is the
world: when an event can come about at all, and what it does to cameras, stores and memory. One `atomic` step is one
journal transaction, or one thing that happens outside.

The claim is promise P01 as a whole: a clip whose bytes are gone from its camera by our hand was held by both
stores at that instant, was confirmed by both, and was what had been sealed.
"""

from __future__ import annotations

from dockd.core.lifecycle import ACQUISITION, AcquisitionEvent, AcquisitionState

CAMERAS, CLIPS, STORES = 2, 2, 2
A, E = AcquisitionState, AcquisitionEvent

# For each event: what has to be so in the world, and what the event does besides changing the state. `c` is the clip,
# `k` its camera. An event that only a person or a store's refusal brings about can always come. What no later step
# asks for is forgotten, so that equal states are equal. To keep them countable, the last clip alone may be too large
# for the spool, or lose its sealed file: what is then read anew is another acquisition, as good as another clip.
DOCKED, LISTED = "docked[k]", "listed[k]"
# A second read may come at any time after the first; what an earlier one would change, one right before the warrant
# changes as well.
DUE = "listed[k] && present[c] && state[c] == STORED"
BOTH = "confirmed[c*2] && confirmed[c*2+1]"
FORGET = "confirmed[c*2] = false; confirmed[c*2+1] = false; holds[c*2] = false; holds[c*2+1] = false"
EVENTS: dict[AcquisitionEvent, tuple[str, str]] = {
    E.NEEDS_SPOOL: ("c == 3", "skip"),
    E.READ_STARTED: (f"{LISTED} && present[c]", "skip"),
    E.READ_ABANDONED: ("true", "skip"),
    E.SEALED: (f"{LISTED} && present[c]", "sealed[c] = true; same[c] = true"),
    E.REGISTERED: ("sealed[c]", "skip"),
    E.REOPENED: ("true", FORGET),
    E.STORED: (BOTH, "skip"),
    E.RETRACTED: ("c == 3 && present[c]", FORGET),
    E.REREAD: (f"{DUE} && same[c] && !reread[c]", "reread[c] = true"),
    E.CONTESTED: (f"{DUE} && !same[c] && !contested[c]", "contested[c] = true; reread[c] = false"),
    E.RELEASED: ("!intact[c]", "intact[c] = true"),
    E.SEEN_AGAIN: (f"{DOCKED} && !listed[k] && present[c] && !contested[c]", "skip"),
    E.WARRANTED: (f"{LISTED} && reread[c] && !contested[c] && intact[c] && holds[c*2] && holds[c*2+1]", "skip"),
    E.LAPSED: (f"{DOCKED} && !listed[k] && present[c]", "skip"),
    E.ERASED: (f"{DOCKED} && !present[c]", FORGET),
    E.DEPARTED: (f"{LISTED} && !present[c]", "skip"),
    E.SPOILED: ("c == 3", f"reread[c] = false; {FORGET}"),
    E.QUARANTINED: ("true", f"reread[c] = false; {FORGET}"),
    E.READ_AGAIN: ("!sealed[c]", "skip"),
    E.PUSH_AGAIN: ("sealed[c] && present[c]", "skip"),  # of what is gone from its camera nothing more can be lost
}


def model() -> str:
    """The whole model."""
    states = list(A)
    lines = [f"#define {state.name} {number}" for number, state in enumerate(states)]
    lines += [_DECLARATIONS.format(clips=CAMERAS * CLIPS, cameras=CAMERAS, cells=CAMERAS * CLIPS * STORES)]
    lines += [_CLAIM, f"active [{CAMERAS * CLIPS}] proctype clip()", "{", "  byte c = _pid;", "  byte k = c / 2;"]
    lines += ["  do"]
    lines += [_transition(before, event, after) for (before, event), after in ACQUISITION.items() if before]
    lines += [_ERASURE, *(_STORE.format(s=s) for s in range(STORES)), "  od", "}", _CAMERA]
    return "\n".join(lines) + "\n"


def _transition(before: AcquisitionState, event: AcquisitionEvent, after: AcquisitionState) -> str:
    condition, effect = EVENTS[event]
    return (
        f"  :: atomic {{ state[c] == {before.name} && {condition} -> {effect}; state[c] = {after.name}; claim(c) }}"
        f" /* {event.value} */"
    )


_CLAIM = """
#define settled(x) (state[x] != ACQUIRING && state[x] != WARRANTED)

/* What a state says of the clip. That an erasure was right is asserted where the reader erases. */
inline claim(x) {
  assert(state[x] != ERASED || !present[x]);
  assert(!(state[x] == STORED || state[x] == WARRANTED) || (confirmed[x*2] && confirmed[x*2+1]));
}
"""

_DECLARATIONS = """
byte state[{clips}];          /* FOUND is where every clip begins */
bool present[{clips}] = true; /* on its camera */
bool same[{clips}] = true;    /* the file is what was read last */
bool sealed[{clips}];
bool reread[{clips}];         /* within this docking */
bool contested[{clips}];
bool intact[{clips}] = true;  /* or released by a person */
bool holds[{cells}];          /* the store durably has the sealed bytes */
bool confirmed[{cells}];         /* the station verified the store's receipt */
bool docked[{cameras}];
bool listed[{cameras}];
"""

# The reader erases under a warrant of this docking. That it also asks for its own second read is left out here, so
# that the warrant's condition has to carry the claim alone.
_ERASURE = """
  :: atomic {
       state[c] == WARRANTED && listed[k] && present[c] ->
       assert(same[c] && intact[c] && !contested[c]);
       assert(holds[c*2] && holds[c*2+1] && confirmed[c*2] && confirmed[c*2+1]);
       present[c] = false; claim(c)
     } /* the reader erases */
"""

# A store gets the bytes while the clip is uploading, and signs for what it has; of a camera's first clip the answer
# may come late or never, of its second it comes with the last byte. The two stores are alike: the first leads.
# Either may lose what it signed for: the very first clip.
_STORE = """
  :: atomic {{ state[c] == UPLOADING && sealed[c] && !holds[c*2+{s}] && ({s} == 0 || holds[c*2]) ->
               holds[c*2+{s}] = true; confirmed[c*2+{s}] = (c % 2 == 1) }}
  :: atomic {{ state[c] == UPLOADING && holds[c*2+{s}] && !confirmed[c*2+{s}] && ({s} == 0 || confirmed[c*2]) ->
               confirmed[c*2+{s}] = true }}
  :: atomic {{ state[c] == STORED && holds[c*2+{s}] && c == 0 -> holds[c*2+{s}] = false }}
"""

# Cameras come and go, power fails, other hands change files. A new docking has forgotten every second read. To keep
# the states countable, the first clip of a camera is the one that may be damaged, the second the one that may change.
_CAMERA = """
active [2] proctype camera()
{
  byte k = _pid - 4;
  do
  :: atomic { !docked[k] -> docked[k] = true }
  :: atomic { docked[k] && !listed[k] && settled(k*2) && settled(k*2+1) -> listed[k] = true }
  :: atomic { docked[k] -> docked[k] = false; listed[k] = false; reread[k*2] = false; reread[k*2+1] = false }
  :: atomic { !docked[k] && present[k*2+1] && same[k*2+1] && sealed[k*2+1] -> same[k*2+1] = false }
  :: atomic { state[k*2] == FOUND && intact[k*2] && !docked[k] -> intact[k*2] = false }
  od
}
"""

if __name__ == "__main__":
    print(model(), end="")  # noqa: T201  to look at it
