import pytest

from dockd.errors import ConfigError
from dockd.stores.address import parse_address


@pytest.mark.parametrize(
    ("url", "loopback", "origin", "path"),
    [
        ("https://store.example", False, "https://store.example:443", ""),
        ("https://store.example:8443/a/b/", False, "https://store.example:8443", "/a/b"),
        ("https://[2001:db8::1]/x", False, "https://[2001:db8::1]:443", "/x"),
        ("http://127.0.0.1:8080/x", True, "http://127.0.0.1:8080", "/x"),
        ("http://[::1]", True, "http://[::1]:80", ""),
    ],
)
def test_an_address_is_dialled_with_its_port(url, loopback, origin, path):
    found = parse_address(url, insecure_loopback=loopback)
    assert (found.origin, found.path) == (origin, path)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1", False),
        ("http://192.0.2.1", True),
        ("http://localhost", True),  # a name is what somebody's resolver makes of it
        ("http://127.0.0.1.example", True),
        ("https://", False),
        ("https://user:secret@store.example", False),
        ("https://store.example/?q", False),
        ("https://store.example/#f", False),
        ("https://store.example:99999", False),
        ("ftp://store.example", True),
    ],
)
def test_an_address_that_is_no_use_is_named(url, loopback):
    with pytest.raises(ConfigError) as caught:
        parse_address(url, insecure_loopback=loopback)
    assert url in caught.value.problems[0]
