"""What somebody else's JSON may hold, and what of it may enter a sentence."""

import pytest

from dockd.core import canonical
from dockd.core.fields import Fields
from dockd.errors import VerificationFailed


@pytest.mark.parametrize(
    "value",
    ['"\\ud800"', '{"\\udfff": 1}', "1e999", "-1e999", "NaN", "9" * 17, "9" * 5000, "[" * 3000, "1.5", '{"a":1,"a":2}'],
)
def test_p09_a_value_that_cannot_be_said_again_is_refused_where_it_is_read(value):
    with pytest.raises(VerificationFailed) as caught:
        canonical.decode(b'{"type":"t","v":1,"x":' + value.encode() + b"}", type_="t")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "parse",
    [
        canonical.parse_time,
        canonical.parse_digest,
        canonical.decode_path,
        lambda text: Fields({text: 1}, "t").end(),
        lambda text: canonical.decode(canonical.encode({"type": text, "v": 1}), type_="t"),
    ],
)
def test_p10_a_sentence_about_a_long_value_is_short(parse):
    with pytest.raises(VerificationFailed) as caught:
        parse("% " + "x" * 200_000)
    assert len(str(caught.value)) < 300
