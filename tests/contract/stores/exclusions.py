"""Which test does not apply to which kind of store, and why. Excluded tests are not collected: nothing looks passed."""

from __future__ import annotations

_IN_MEMORY = "it has no network, no credentials and no disk of its own"
_PARTS = "its parts are 5 MiB at least, so nothing gets through until the proxy is set up: the sentence says how"
_NO_NAMES = "the server names uploads itself, so nothing else can stand under the name"
_MEMORY = dict.fromkeys(("memory", "memory-objects", "memory-parts"), _IN_MEMORY)

EXCLUDED: dict[str, dict[str, str]] = {
    "test_wrong_credentials_hold_and_condemn_nothing": _MEMORY
    | {"tus-seaweed": "its filer is reached without credentials; TLS client certificates guard it where it is exposed"},
    "test_another_object_under_the_name_is_not_overwritten": {"tus-node": _NO_NAMES},
    "test_an_early_refusal_is_survived": _MEMORY,
    "test_an_upload_that_expired_is_lost_and_can_be_made_again": _MEMORY
    | {
        "receiver": "its uploads stay for days; tests of its own turn its clock",
        "axis-swift": "nothing in it expires, and an upload is named by its acquisition, so that a new one is the same",
    },
    "test_a_full_disk_keeps_what_was_acknowledged": _MEMORY | {"receiver": "a test of its own fills it"},
    "test_no_refusal_of_an_append_condemns_anything": _MEMORY,
    "test_a_store_that_fails_to_say_where_it_stands_is_asked_again": _MEMORY,
    "test_an_upload_that_was_not_found_once_is_gone_on_with": _MEMORY,
    "test_p02_another_life_goes_on_while_the_first_ones_append_still_hangs_at_the_store": _MEMORY,
    "test_p02_a_failed_finish_is_tried_again": _MEMORY,
    "test_a_proxy_that_takes_small_bodies_only": dict.fromkeys(("seaweed-s3", "ceph-s3"), _PARTS),
    "test_after_a_cancelled_append_the_rest_can_be_sent": {
        "memory": "one of its own in test_evidence_store.py",
    },
}
"""By test, then by kind."""
