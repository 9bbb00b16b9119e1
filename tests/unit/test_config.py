"""Configurations: every mistake at once, in words; the shipped files name every key of the schema and no other."""

import os
import tomllib
from pathlib import Path

import pytest

from dockd.app.receiver import categories_of
from dockd.config import load, schema, tables
from dockd.core.retention import Terms, Until, usual_terms
from dockd.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
UUID = "2db5fa43-e631-41ee-9f61-16bbd09ce1ab"

STATION = f"""
[station]
id = "{UUID}"
state_dir = "state"
[keys]
manifest = "manifest.key"
checkpoint = "checkpoint.key"
[bays]
folder_root = "bays"
[seal]
recipients_file = "recipients.txt"
[store.archive]
url = "https://127.0.0.1:8443"
ca_file = "ca.crt"
key_file = "store.pub"
"""


@pytest.fixture
def station(tmp_path):
    """A station's file and all that it names, in files that hold nothing of worth."""
    for name in ("manifest.key", "checkpoint.key", "recipients.txt", "ca.crt", "store.pub"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "bays" / "1").mkdir(parents=True)
    file = tmp_path / "dockd.toml"
    file.write_text(STATION)
    return file


def problems(file, *, files=True):
    with pytest.raises(ConfigError) as caught:
        load.load_station(file, files=files)
    for line in caught.value.problems:
        assert line.startswith(f"{file}: ")
    return [line.removeprefix(f"{file}: ") for line in caught.value.problems]


# --- the shipped files


@pytest.mark.parametrize(
    ("shipped", "model", "loader"),
    [
        ("dockd.toml", schema.StationConfig, load.load_station),
        ("receiver.toml", schema.ReceiverConfig, load.load_receiver),
    ],
)
def test_the_shipped_file_lists_every_key_with_a_comment_and_its_default(shipped, model, loader):
    file = REPOSITORY / "config" / shipped
    document = tomllib.loads(file.read_text())
    assert set(_keys(document)) == set(schema.keys_of(model))

    lines = file.read_text().splitlines()
    for number, line in enumerate(lines):
        if line and line[0].isalpha():
            assert lines[number - 1].startswith("#"), f"{shipped}:{number + 1} has no comment above it"

    loader(file, files=False)
    sections = [(document, model)]
    while sections:
        values, table = sections.pop()
        for name, field in table.model_fields.items():
            tables, named = schema.inner_tables(field.annotation)
            value = values.get(name)
            comparable = field.annotation in (int, float, bool, str) or "tuple" in str(field)
            if isinstance(value, dict) and tables:
                inner = value.values() if named else [value]
                kinds = [one.get("kind", "receiver") if named and "" not in tables else "" for one in inner]
                sections += [(one, tables[kind]) for one, kind in zip(inner, kinds, strict=True)]
            elif value is None or field.is_required() or not comparable or name in EXAMPLES:
                continue
            else:
                written = tuple(value) if isinstance(value, list) else value
                assert written == field.default, f"{name} ships another default"


# Keys of which the shipped files have examples: of bays.ports, lookups.permit and store.spare the default is none, and
# of the stores that do not sign each has to say for itself what holds there.
EXAMPLES = {
    "ports",
    "permit",
    "fallback_for",
    "system_trust",
    "region",
    "min_retention_days",
    "lock",
    "lock_days",
    "legal_hold",
}


def test_the_shipped_file_lists_every_key_of_a_kind_in_a_section_of_that_kind():
    document = tomllib.loads((REPOSITORY / "config" / "dockd.toml").read_text())
    kinds, _ = schema.inner_tables(schema.StationConfig.model_fields["store"].annotation)
    for kind, table in kinds.items():
        listed = {key for one in document["store"].values() if one.get("kind", "receiver") == kind for key in one}
        others = {key for one in kinds.values() if one is not table for key in one.model_fields}
        assert table.model_fields.keys() - others <= listed, kind


def _keys(document, above=""):
    for key, value in document.items():
        if not isinstance(value, dict) or f"{above}{key}" in ("bays.ports", "lookups.permit", "uplink.caps"):
            yield above + key
            continue
        named = ("store.NAME.minimum", "retention.categories")
        is_named = (key == "store" and not above and "archive" in value) or f"{above}{key}" in named
        tables = value.values() if is_named else (value,)
        for table in tables:
            yield from _keys(table, f"{above}{key}.NAME." if table is not value else f"{above}{key}.")


def test_the_shipped_file_marks_just_the_reloadable_keys_as_live():
    marked, table, comment = set(), "", ""
    for line in (REPOSITORY / "config" / "dockd.toml").read_text().splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif line.startswith("#"):
            comment += line
        elif " = " in line and comment.endswith("(live)"):
            marked.add(f"{table}.{line.partition(' ')[0]}")
        if not line.startswith("#"):
            comment = ""
    assert marked == schema.RELOADABLE


@pytest.mark.parametrize("model", [schema.StationConfig, schema.ReceiverConfig])
def test_every_key_says_what_is_allowed(model):
    def check(table):
        for name, field in table.model_fields.items():
            assert field.description, f"{table.__name__}.{name}"
            for inner in schema.inner_tables(field.annotation)[0].values():
                check(inner)

    check(model)


# --- the station's file


def test_relative_paths_start_at_the_real_directory_of_the_file(station, tmp_path):
    config = load.load_station(station)
    assert config.keys.manifest == tmp_path / "manifest.key"
    assert config.spool_directory == tmp_path / "state" / "spool"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.toml").symlink_to(station)
    assert load.load_station(tmp_path / "elsewhere" / "link.toml") == config


def test_the_socket_follows_from_the_trial(station, tmp_path):
    assert load.load_station(station).socket_path == Path("/run/dockd/control.sock")
    station.write_text("trial = true\n" + STATION)
    assert load.load_station(station).socket_path == tmp_path / "state" / "control.sock"
    station.write_text(STATION.replace("[keys]", 'socket = "my.sock"\n[keys]'))
    assert load.load_station(station).socket_path == tmp_path / "my.sock"


def test_bays_are_the_numbered_directories(station, tmp_path):
    for name in ("2", "10", "03", "x", "0"):
        (tmp_path / "bays" / name).mkdir()
    (tmp_path / "bays" / "4").write_text("a file")
    assert sorted(load.load_station(station).bay_directories()) == [1, 2, 10]


PORTS = (
    '[cameras]\ndirectory = "."\n'
    '[bays.ports]\n3 = ["0000:00:14.0/1"]\n12 = ["0000:00:14.0/2.1", "dummy_hcd.0/2.2.3"]\n[seal]'
)


def test_bays_are_usb_ports_too(station):
    station.write_text(STATION.replace("[seal]", PORTS))
    config = load.load_station(station)
    assert config.bays.port_numbers() == {"0000:00:14.0/1": 3, "0000:00:14.0/2.1": 12, "dummy_hcd.0/2.2.3": 12}
    assert sorted(config.bay_directories()) == [1]
    station.write_text(STATION.replace("[seal]", PORTS).replace('folder_root = "bays"\n', ""))
    config = load.load_station(station)
    assert config.bays.folder_root is None
    assert not config.bay_directories()
    assert sorted(config.bays.ports) == ["12", "3"]


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ('03 = ["0000:00:14.0/1"]', 'bays.ports: found "03"'),
        ("3 = []", "bays.ports: found a table"),
        ('3 = ["0000:00:14.0/1"]\n4 = ["0000:00:14.0/1"]', "bays.ports: found a table"),
        ('3 = ["usb-0:3"]', 'bays.ports: found "usb-0:3"'),
        ('3 = ["0000:00:14.0/0"]', 'bays.ports: found "0000:00:14.0/0"'),
        ('3 = "0000:00:14.0/1"', 'bays.ports: found "0000:00:14.0/1"'),
    ],
)
def test_a_port_that_is_none_is_refused(station, ports, found):
    station.write_text(STATION.replace("[seal]", f"[bays.ports]\n{ports}\n[seal]"))
    (line,) = problems(station)
    assert line.startswith(f"{found}; allowed: a table of bay numbers, each with a list of USB ports")


def test_a_station_without_any_bay_is_refused(station):
    station.write_text(STATION.replace('folder_root = "bays"', ""))
    (line,) = problems(station)
    assert line == "bays: found a table; allowed: a table [bays] with folder_root, [bays.ports] or both"


def test_a_number_is_one_bay(station, tmp_path):
    (tmp_path / "bays" / "3").mkdir()
    station.write_text(STATION.replace("[seal]", PORTS))
    (line,) = problems(station)
    assert line.startswith(f"bays.ports: found {tmp_path / 'bays' / '3'} (bay 3 is this directory, too)")


def test_every_mistake_is_told_at_once(station):
    station.write_text(
        STATION.replace(f'id = "{UUID}"', 'id = "dock 1"')
        .replace('folder_root = "bays"', 'folder_rot = "bays"')
        .replace("https:", "http:")
        .replace('recipients_file = "recipients.txt"', "recipients_file = 5")
        + 'slots = "3"\nread_timeout_s = inf\n[acquire]\nblock_kib = 8192\nsuffixes = ["mp4", ".mp4"]\n'
        + "[log]\nlevel = 'loud'\n[sppol]\nmax_bytes = 1\n"
    )
    found = problems(station)
    assert [line.split(": ")[0] for line in found] == [
        "station.id",
        "bays.folder_rot",
        "seal.recipients_file",
        "acquire.block_kib",
        "acquire.suffixes[0]",
        "store.archive.url",
        "store.archive.slots",
        "store.archive.read_timeout_s",
        "log.level",
        "sppol",
    ]
    for line in found:
        assert ": found " in line
        assert "; allowed: " in line
        assert line.split("; allowed: ")[1]
    assert found[0].startswith('station.id: found "dock 1"; allowed: the station\'s UUID')
    assert found[1] == "bays.folder_rot: found an unknown key (did you mean folder_root?); allowed: folder_root, ports"
    assert found[3] == "acquire.block_kib: found 8192; allowed: a whole number from 256 to 4096 (KiB)"
    assert "did you mean spool?" in found[-1]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("slots = true", "true"),
        ("slots = 3.0", "3.0"),
        ("slots = 1979-05-27", "the time 1979-05-27"),
        ("slots = [1, 2]", "[1, 2]"),
        ("slots = {a = 1}", "a table"),
        ("slots = " + "9" * 200, "9" * 80 + "..."),
    ],
)
def test_a_wrong_type_is_never_made_right(station, line, shown):
    station.write_text(STATION + line)
    assert problems(station) == [
        f"store.archive.slots: found {shown}; allowed: a whole number from 1 to 32 (uploads at once)"
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "https://",
        "https://user:secret@host",
        "https://host/?q",
        "https://host/#f",
        "https://host:99999",
        "host:8443",
        "",
    ],
)
def test_a_url_that_cannot_be_used_is_refused(station, url):
    station.write_text(STATION.replace("https://127.0.0.1:8443", url))
    assert [line.split(":")[0] for line in problems(station)] == ["store.archive.url"]


def test_a_table_that_is_a_value_and_a_value_that_is_a_table(station):
    station.write_text("spool = 5\n" + STATION.replace("[seal]", "[log.level]\nx = 1\n[seal]"))
    assert sorted(problems(station)) == [
        'log.level: found a table; allowed: "debug", "info", "warning" or "error"',
        "spool: found 5; allowed: a table [spool]",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"trial = ", "is no TOML"),
        (b"\xff\xfe", "is no UTF-8"),
        (b"a = " + b"[" * 5000, "is no TOML"),
        (b"#" * (1024 * 1024 + 1), "more than"),
    ],
)
def test_what_is_no_configuration_is_told_so(station, content, words):
    station.write_bytes(content)
    (line,) = problems(station)
    assert words in line


def test_a_missing_or_unreadable_file_is_told_so(tmp_path):
    (line,) = problems(tmp_path / "none.toml")
    assert "there is no such file" in line
    assert "dockd init" in line
    (tmp_path / "directory.toml").mkdir()
    (line,) = problems(tmp_path / "directory.toml")
    assert "Is a directory" in line


# --- stores of every kind


S3 = """
[store.vault]
kind = "s3"
url = "https://s3.example.org"
bucket = "bodycam"
system_trust = true
lock = "compliance"
lock_days = 365
"""
TUS = """
[store.tus]
kind = "tus"
url = "https://tus.example.org/files"
system_trust = true
min_retention_days = 0
"""
AXIS = """
[store.video]
kind = "axis"
url = "https://vms.example.org/auth/v1.0"
system_trust = true
credentials_file = "video.json"
min_retention_days = 0
"""


def test_every_kind_of_store_is_known_by_its_keys(station):
    station.write_text(STATION + S3 + TUS + AXIS)
    found = load.load_station(station).store
    assert {name: one.kind for name, one in found.items()} == {
        "archive": "receiver",
        "vault": "s3",
        "tus": "tus",
        "video": "axis",
    }
    assert found["vault"].part_bytes == 8 << 20
    assert found["vault"].evidence_days == 365
    assert found["tus"].patch_bytes == 64 << 20


@pytest.mark.parametrize("kind", ['"ftp"', "5", "[1]", "{a = 1}", "true"])
def test_an_unknown_kind_is_told_what_kinds_there_are(station, kind):
    station.write_text(STATION + f"kind = {kind}")
    (line,) = problems(station)
    assert line.startswith("store.archive.kind: found ")
    assert line.endswith('; allowed: "receiver", "tus", "s3" or "axis"')


def test_a_store_that_is_no_table_is_told_so(station):
    station.write_text(STATION.replace("[store.archive]", "[store]\narchive = 5\n[log]"))
    assert "store.archive: found 5; allowed: a table [store.NAME] for each store, NAME of up to 32" in "".join(
        problems(station)
    )


def test_a_key_of_another_kind_is_named_with_the_kind_that_has_it(station):
    station.write_text(STATION + 'bucket = "b"\nread_back_rate = "1 MB/s"\nslits = 3\n' + TUS + "prefix = ''")
    hints = [line.partition("; allowed: ")[0] for line in problems(station)]
    assert hints == [
        'store.archive.bucket: found an unknown key (it belongs to kind = "s3")',
        'store.archive.read_back_rate: found an unknown key (it belongs to kind = "tus" or "s3" or "axis")',
        "store.archive.slits: found an unknown key (did you mean slots?)",
        'store.tus.prefix: found an unknown key (it belongs to kind = "s3")',
    ]


def test_a_table_inside_a_store_has_its_own_keys(station):
    station.write_text(STATION + S3 + "[store.vault.web_identity]\nurl = 'https://sts'\nrolle = 'x'")
    assert [line.partition(";")[0] for line in problems(station)] == [
        "store.vault.web_identity.role: found nothing",
        "store.vault.web_identity.token_file: found nothing",
        "store.vault.web_identity.rolle: found an unknown key (did you mean role?)",
    ]


def test_what_promises_nothing_has_to_be_asked_for_nothing(station):
    station.write_text(STATION + TUS.replace("min_retention_days = 0", "") + AXIS.replace("= 0", "= 31"))
    assert [line.partition(": nothing makes")[0] for line in problems(station)] == [
        "store.tus.min_retention_days: found nothing; allowed: 0, said outright",
        "store.video.min_retention_days: found 31; allowed: 0, said outright",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "lock_days = 365",
            "lock_days = 30",
            "store.vault.min_retention_days: found 31, and objects are locked for 30",
        ),
        ("lock_days = 365", "lock_days = 31\nlock_evidence_days = 7", "store.vault.min_retention_days: found 31, and"),
        ('lock = "compliance"', "", 'store.vault.lock: found "none"; allowed: "governance" or "compliance"'),
        ('lock = "compliance"\nlock_days = 365', "", "store.vault.min_retention_days: found 31, and objects are"),
        ("system_trust = true", "", "store.vault.ca_file: found neither ca_file nor system_trust"),
        ("system_trust", 'ca_file = "ca.crt"\nsystem_trust', "store.vault.ca_file: found both ca_file and"),
        ("system_trust", 'client_cert = "ca.crt"\nsystem_trust', "store.vault.client_key: found nothing; allowed"),
        ("system_trust", 'proxy_url = "socks://x"\nsystem_trust', 'store.vault.proxy_url: found "socks://x"; allowed'),
        ("bodycam", "b", 'store.vault.bucket: found "b"; allowed: a bucket\'s name'),
        ("system_trust", 'prefix = "/a"\nsystem_trust', 'store.vault.prefix: found "/a"; allowed: what keys begin'),
    ],
)
def test_what_does_not_fit_together_is_told(station, old, new, line):
    station.write_text(STATION + S3.replace(old, new))
    found = problems(station)
    assert len(found) == 1
    assert found[0].startswith(line)


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        (TUS, TUS.replace("https://tus.example.org/files", "https://TUS.example.org:443/files/"), "url"),
        (AXIS, AXIS.replace("video.json", "other.json"), "url"),
        (S3, S3.replace("lock_days = 365", "lock_days = 99"), "bucket"),
    ],
)
def test_two_sections_of_one_place_are_refused(station, one, other, key):
    station.write_text(STATION + one + other.replace("[store.", "[store.other-"))
    (line,) = problems(station)
    name = one.partition("[store.")[2].partition("]")[0]
    assert line == f"store.other-{name}.{key}: found the same place as store.{name}; allowed: a place of its own"


def test_another_prefix_or_bucket_is_another_place(station):
    station.write_text(
        STATION
        + S3
        + S3.replace("vault", "second").replace("bucket =", 'prefix = "a/b"\nbucket =')
        + S3.replace("vault", "third").replace("bodycam", "archive")
    )
    places = [one.place for one in load.load_station(station).store.values()]
    assert places[1:] == [
        "s3 https://s3.example.org:443/bodycam",
        "s3 https://s3.example.org:443/bodycam/a/b",
        "s3 https://s3.example.org:443/archive",
    ]


def test_what_signs_in_to_a_store_may_come_later_but_is_private(station, tmp_path):
    station.write_text(STATION + TUS + 'authorization_file = "token"\n' + S3 + 'credentials_file = "keys"\n' + AXIS)
    load.load_station(station)
    for name in ("token", "keys", "video.json"):
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(0o640)
    assert [line.partition(": found")[0] for line in problems(station)] == [
        "store.tus.authorization_file",
        "store.vault.credentials_file",
        "store.video.credentials_file",
    ]


# --- the files that it names


def test_all_missing_and_unsafe_files_are_told_at_once(station, tmp_path):
    (tmp_path / "manifest.key").unlink()
    (tmp_path / "checkpoint.key").chmod(0o640)
    (tmp_path / "recipients.txt").unlink()
    (tmp_path / "recipients.txt").mkdir()
    (tmp_path / "ca.crt").unlink()
    os.mkfifo(tmp_path / "store.fifo")
    (tmp_path / "bays" / "1").rmdir()
    (tmp_path / "state").write_text("in the way")
    found = problems(station)
    assert [line.split(": ")[0] for line in found] == [
        "keys.manifest",
        "keys.checkpoint",
        "seal.recipients_file",
        "store.archive.ca_file",
        "bays.folder_root",
        "station.state_dir",
    ]
    assert "No such file" in found[0]
    assert "mode 0640, others can read it" in found[1]
    assert f"chmod 600 {tmp_path / 'checkpoint.key'}" in found[1]
    assert "no bay in it" in found[4]


def test_who_only_asks_needs_none_of_the_files(tmp_path):
    file = tmp_path / "dockd.toml"
    file.write_text(STATION)
    assert load.load_station(file, files=False).station.id == UUID


def test_the_state_directory_may_still_be_to_be_made(station, tmp_path):
    station.write_text(STATION.replace('"state"', '"a/b/c"'))
    assert load.load_station(station).station.state_dir == tmp_path / "a" / "b" / "c"


# --- where it is looked for


def test_the_option_goes_before_the_variable_before_etc(monkeypatch):
    monkeypatch.delenv("DOCKD_CONFIG", raising=False)
    monkeypatch.delenv("DOCKD_RECEIVER_CONFIG", raising=False)
    assert load.find_config(None) == Path("/etc/dockd/dockd.toml")
    assert load.find_receiver_config(None) == Path("/etc/dockd/receiver.toml")
    monkeypatch.setenv("DOCKD_CONFIG", "/x/station.toml")
    monkeypatch.setenv("DOCKD_RECEIVER_CONFIG", "/x/receiver.toml")
    assert load.find_config(None) == Path("/x/station.toml")
    assert load.find_receiver_config(None) == Path("/x/receiver.toml")
    assert load.find_config("y.toml") == Path("y.toml")
    assert load.find_receiver_config("y.toml") == Path("y.toml")


# --- how long clips are kept


def receiver(tmp_path, retention):
    file = tmp_path / "receiver.toml"
    shipped = (REPOSITORY / "config" / "receiver.toml").read_text()
    before, after = shipped.index("[retention]"), shipped.index("[uploads]")
    file.write_text(f"{shipped[:before]}{retention}\n{shipped[after:]}")
    return file


def test_evidence_stays_and_what_is_none_goes_where_nothing_is_said(tmp_path):
    found = categories_of(load.load_receiver(receiver(tmp_path, ""), files=False).retention)
    assert found == usual_terms()
    shipped = load.load_receiver(REPOSITORY / "config" / "receiver.toml", files=False).retention
    assert categories_of(shipped) == usual_terms()


def test_a_force_has_categories_of_its_own(tmp_path):
    text = (
        '[retention.categories."Public order"]\nrecorded_days = 90\n[retention.categories.evidence]\nreview_days = 30\n'
    )
    found = categories_of(load.load_receiver(receiver(tmp_path, text), files=False).retention)
    assert found["Public order"] == Terms(recorded_days=90)
    assert found["evidence"] == Terms(until=Until.ENDED, review_days=30)
    assert found["none"] == Terms()


def test_the_days_of_before_are_what_old_stations_are_told(tmp_path):
    found = load.load_receiver(receiver(tmp_path, "[retention]\ndays = 365"), files=False).retention
    assert (found.legacy_days, found.says_days) == (365, True)
    assert categories_of(found) == usual_terms()
    now = load.load_receiver(receiver(tmp_path, "[retention]\nlegacy_days = 365"), files=False).retention
    assert (now.legacy_days, now.says_days) == (365, False)


def test_every_mistake_about_retention_is_listed_at_once(tmp_path):
    text = """
[retention]
days = 3
legacy_days = -1
[retention.categories.none]
until = "never"
recorded_days = 0
review_days = "7"
undo = 7
"""
    with pytest.raises(ConfigError) as caught:
        load.load_receiver(receiver(tmp_path, text), files=False)
    told = "\n".join(caught.value.problems)
    for key in ("days: found an unknown key", "legacy_days", "until", "recorded_days", "review_days", "undo"):
        assert f"retention.{key}" in told or f"retention.categories.none.{key}" in told, key


@pytest.mark.parametrize("text", ['[retention.categories.evidence]\nuntil = "date"', '[retention.categories.""]'])
def test_evidence_has_no_date_and_every_category_a_name(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        load.load_receiver(receiver(tmp_path, text), files=False)
    assert "retention.categories" in caught.value.problems[0]


# --- what a running daemon takes over


def test_reloadable_keys_exist():
    assert set(schema.keys_of(schema.StationConfig)) >= schema.RELOADABLE


def test_changes_are_named_and_told_apart(station):
    before = load.load_station(station)
    station.write_text(
        STATION.replace('"bays"', '"./bays/../other"') + "slots = 7\n[acquire]\nmax_depth = 3\n[log]\nlevel = 'debug'\n"
    )
    after = load.load_station(station, files=False)
    assert schema.changed_keys(before, after) == [
        "bays.folder_root",
        "acquire.max_depth",
        "store.archive.slots",
        "log.level",
    ]
    assert schema.fixed_changes(before, after) == ["bays.folder_root", "store.archive.slots"]
    assert schema.fixed_changes(before, before) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8443", ("127.0.0.1", 8443)),
        ("[::1]:1", ("::1", 1)),
        ("evidence.example.org:65535", ("evidence.example.org", 65535)),
    ],
)
def test_addresses_are_split(text, parts):
    assert tables.split_address(text) == parts


@pytest.mark.parametrize(
    "text", ["", ":1", "host", "host:", "host:0", "host:65536", "::1:80", "[x]:1", "a b:1", "-a:1", "h:1x", "h:\u0661"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        tables.split_address(text)
