"""The sandbox's CoMSES site against every exchange recorded from the running site, and its orders for faults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from spamops.sandbox.items import SPAM_SHARE, labelled_items
from spamops.sandbox.site import BATCH_PATH, UPDATE_PATH, SandboxSite
from spamops.sandbox.site_store import BATCH_PLACES, SCHEDULED, SiteStore

RECORDED = Path(__file__).parent / "comses"
KEY = "EXAMPLE-KEY"
BYTES_THAT_ARE_NOT_UTF8 = b'{"id":15,"is_spam":true,"reasoning":"\xff\xfe"}'


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text(encoding="utf-8"))


def exchanges(*names: str) -> list[Any]:
    return [pytest.param(exchange, id=exchange["name"]) for name in names for exchange in recorded(name)]


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxSite]:
    with SandboxSite(api_key=KEY) as site:
        yield site


@pytest.fixture
def site(server: SandboxSite) -> Iterator[SandboxSite]:
    """The running site, empty."""
    server.store.close()
    server.store = SiteStore()
    yield server
    server.faults.clear()


@pytest.fixture
def client(site: SandboxSite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, headers={"X-API-Key": KEY}, timeout=5) as client:
        yield client


def fill_as_recorded(store: SiteStore) -> None:
    """The records that the exchanges name."""
    for record in recorded("latest-batch.json") + recorded("latest-batch-missing-keys.json"):
        content = record["contentObject"]
        store.add(
            record["contentType"],
            content,
            record_id=record["id"],
            object_id=record["objectId"],
            gone="id" not in content,
        )
    for record_id in (8, 11, 15):
        store.add("job", {"title": f"Job {record_id}"}, record_id=record_id)
    store.add("family", {}, record_id=29)
    store.add("job", {}, record_id=33, status="spam", details={"by": "seed"})
    store.add("job", {}, record_id=34, status="not_spam", details={"by": "seed"})
    store.add("job", {}, record_id=37, status="spam_likely", details={"honeypot_value": "spam spam"})


def fill_up_to_a_batch_of_96(store: SiteStore) -> None:
    """Four of the first hundred are of a type that is never delivered; one was there before."""
    for _ in range(3):
        store.add("family")
    for _ in range(BATCH_PLACES):
        store.add("job", {"title": "Filler"})


def body_of(exchange: dict[str, Any]) -> bytes | None:
    body = exchange["request"].get("body")
    if exchange["name"] == "not UTF-8":
        return BYTES_THAT_ARE_NOT_UTF8
    if body is None:
        return None
    if isinstance(body, dict) and "raw" in body:
        return str(body["raw"]).encode()
    text = json.dumps(body).replace("(10000 characters, all 'r')", "r" * 10_000)
    return text.encode()


@pytest.mark.parametrize(
    "exchange",
    exchanges("auth-and-transport-errors.json", "host-errors.json", "update-success.json", "update-errors.json"),
)
def test_site_answers_and_stores_as_the_real_one_did(site: SandboxSite, exchange: dict[str, Any]) -> None:
    fill_as_recorded(site.store)
    fill_up_to_a_batch_of_96(site.store)
    before = site.store.stored(15)
    request, expected = exchange["request"], exchange["response"]

    with httpx.Client() as client:
        answer = client.request(
            request["method"], site.url + request["path"], headers=request["headers"], content=body_of(exchange)
        )

    assert answer.status_code == expected["status"]
    body = expected["body"]
    if body == "(the batch, 96 items)":
        assert len(answer.json()) == 96
    elif isinstance(body, dict):
        assert answer.json() == body
    elif not body.startswith("(an HTML page"):
        assert answer.text == body
    for name, value in expected["headers"].items():
        if name != "Content-Length" or body != "(the batch, 96 items)":
            assert answer.headers[name] == value, name
    if "stored" in exchange:
        stored = site.store.stored(int(request["body"].get("id", 14)))
        details = {**stored.detection_details}
        if exchange["name"] == "10,000-character reasoning":
            assert details["reasoning"] == "r" * 10_000
            details["reasoning"] = "(10000 characters)"
        assert {
            "status": stored.status,
            "detection_method": stored.detection_method,
            "detection_details": details,
        } == exchange["stored"]
    else:
        assert site.store.stored(15) == before
        assert site.store.stored(3).status == SCHEDULED


@pytest.mark.parametrize("name", ["latest-batch.json", "latest-batch-missing-keys.json", "latest-batch-empty.json"])
def test_recorded_batch_comes_out_as_it_went_in(site: SandboxSite, client: httpx.Client, name: str) -> None:
    for record in recorded(name):
        content = record["contentObject"]
        site.store.add(
            record["contentType"],
            content,
            record_id=record["id"],
            object_id=record["objectId"],
            gone="id" not in content,
        )

    assert client.get(BATCH_PATH).json() == recorded(name)


def test_empty_batch_while_a_job_waits_behind_records_that_are_never_delivered(
    site: SandboxSite, client: httpx.Client
) -> None:
    for _ in range(BATCH_PLACES):
        site.store.add("family")
    waiting = site.store.add("job", {"title": "Waits"})

    assert client.get(BATCH_PATH).json() == []
    assert site.store.scheduled() == [waiting]


def test_users_edit_schedules_the_same_record_again_at_the_end(site: SandboxSite, client: httpx.Client) -> None:
    first, second = (site.store.add("job", {"title": title}) for title in ("A", "B"))
    client.post(UPDATE_PATH, json={"id": first, "is_spam": True, "reasoning": "bad"})
    assert [record["id"] for record in client.get(BATCH_PATH).json()] == [second]

    site.store.edit(first, title="A, edited")

    batch = client.get(BATCH_PATH).json()
    assert [record["id"] for record in batch] == [second, first]
    assert batch[1]["contentObject"]["title"] == "A, edited"
    assert site.store.stored(first).detection_details == {}


def test_late_verdict_overwrites_a_moderators_decision(site: SandboxSite, client: httpx.Client) -> None:
    record = site.store.add("event")
    site.store.moderator_decides(record, is_spam=False)
    assert site.store.stored(record).status == "not_spam"

    client.post(UPDATE_PATH, json={"id": record, "is_spam": True})

    assert site.store.stored(record).status == "spam_likely"


@pytest.mark.parametrize("details", [[], "text", 3, [{"a": 1}]])
def test_record_with_unreadable_details_can_never_be_updated(
    site: SandboxSite, client: httpx.Client, details: Any
) -> None:
    record = site.store.add("job", details=details)

    answer = client.post(UPDATE_PATH, json={"id": record, "is_spam": True})

    assert answer.status_code == 500
    assert site.store.stored(record).status == SCHEDULED


def test_one_unreadable_profile_fails_the_whole_batch(site: SandboxSite, client: httpx.Client) -> None:
    site.store.add("job")
    profile = site.store.add("memberprofile", unreadable=True)
    answer = client.get(BATCH_PATH)
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/html; charset=utf-8")

    site.store.set_unreadable(profile, False)

    assert len(client.get(BATCH_PATH).json()) == 2


@pytest.mark.parametrize(
    ("body", "is_spam"),
    [
        ('{"id":1,"is_spam":true,"isSpam":false}', False),
        ('{"id":1,"isSpam":false,"is_spam":true}', True),
        ('{"id":12.0,"is_spam":1}', True),
        ('{"id":"1","is_spam":"on"}', True),
        ('{"id":1,"is_spam":0}', False),
        ('{"id":1,"is_spam":"t","confidence":-1}', True),
    ],
)
def test_names_and_values_are_read_as_the_site_reads_them(
    site: SandboxSite, client: httpx.Client, body: str, is_spam: bool
) -> None:
    site.store.add("job", record_id=1)
    site.store.add("job", record_id=12)

    answer = client.post(UPDATE_PATH, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 200
    named = 12 if "12" in body else 1
    assert site.store.stored(named).status == ("spam_likely" if is_spam else "not_spam_likely")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"id":1,"is_spam":true,"confidence":1e999}', 500),
        ('{"id":1,"is_spam":true,"confidence":"nan"}', 500),
        ('{"id":1,"is_spam":true,"confidence":1' + "0" * 400 + "}", 500),
        ('{"id":true,"is_spam":true}', 400),
        ('{"id":1.5,"is_spam":true}', 400),
        ('{"id":1,"is_spam":2}', 400),
        ('{"id":1,"is_spam":""}', 400),
        ('{"id":1,"is_spam":true,"spam_indicators":[true]}', 400),
        ('{"id":1,"is_spam":true,"spam_indicators":[null]}', 400),
        ('{"id":1,"is_spam":true,"spam_indicators":{}}', 400),
        ('{"id":1,"is_spam":true,"reasoning":["a"]}', 400),
        ('{"id":99999999999999999999999,"is_spam":true}', 404),
        ("[" * 100_000, 400),
    ],
)
def test_what_the_site_refuses_is_refused_and_not_stored(
    site: SandboxSite, client: httpx.Client, body: str, status: int
) -> None:
    record = site.store.add("job", record_id=1)

    answer = client.post(UPDATE_PATH, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == status
    assert site.store.stored(record).status == SCHEDULED
    assert [update.stored for update in site.updates][-1] is False


def test_hundred_parallel_updates_are_all_stored(site: SandboxSite, client: httpx.Client) -> None:
    records = site.seed(100)

    with ThreadPoolExecutor(20) as pool:
        statuses = list(
            pool.map(lambda r: client.post(UPDATE_PATH, json={"id": r, "is_spam": True}).status_code, records)
        )

    assert statuses == [200] * 100
    assert site.store.counts()["spam_likely"] == 100
    assert site.store.scheduled() == []


def test_production_settings_redirect_plain_http_after_the_host_was_checked() -> None:
    with SandboxSite(api_key=KEY, allowed_hosts=[".comses.example"], require_https=True) as site:
        answer = httpx.get(site.url + BATCH_PATH, headers={"Host": "www.comses.example", "X-API-Key": KEY})
        refused = httpx.get(site.url + BATCH_PATH, headers={"Host": "comses.example.net", "X-API-Key": KEY})

    assert (answer.status_code, answer.headers["Location"]) == (301, "https://www.comses.example" + BATCH_PATH)
    assert refused.status_code == 400


def test_site_that_was_down_comes_back_on_its_port_with_its_records(tmp_path: Path) -> None:
    with SandboxSite(api_key=KEY, db_path=tmp_path / "site.db") as site:
        site.seed(5)
        site.stop()
        site.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(site.url + BATCH_PATH)

        site.start()

        assert len(httpx.get(site.url + BATCH_PATH, headers={"X-API-Key": KEY}).json()) == 5
    with SandboxSite(api_key=KEY, db_path=tmp_path / "site.db") as again:
        assert len(again.store.scheduled()) == 5


@pytest.mark.parametrize("kind", ["500", "502", "503", "429"])
def test_ordered_status_comes_as_often_as_ordered_and_stores_nothing(
    site: SandboxSite, client: httpx.Client, kind: Any
) -> None:
    record = site.store.add("job")
    site.faults.order(kind, "update", times=2, retry_after_seconds=7)

    answers = [client.post(UPDATE_PATH, json={"id": record, "is_spam": True}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [int(kind), int(kind), 200]
    assert [update.stored for update in site.updates[-3:]] == [False, False, True]
    assert client.get(BATCH_PATH).status_code == 200


@pytest.mark.parametrize(("kind", "stored"), [("cut_before", False), ("cut_after", True)])
def test_cut_connection_leaves_the_verdict_stored_or_not_as_ordered(
    site: SandboxSite, client: httpx.Client, kind: Any, stored: bool
) -> None:
    record = site.store.add("job")
    site.faults.order(kind, "update")

    with pytest.raises(httpx.TransportError):
        client.post(UPDATE_PATH, json={"id": record, "is_spam": True})

    assert (site.store.stored(record).status == "spam_likely") is stored
    assert (site.updates[-1].status, site.updates[-1].stored) == (None, stored)


def test_garbage_and_hanging_answers_can_be_ordered(site: SandboxSite, client: httpx.Client) -> None:
    site.faults.order("garbage", "batch")
    site.faults.order("hang", "batch")
    site.faults.order("hang", "batch", seconds=0.01)

    with pytest.raises(ValueError):
        client.get(BATCH_PATH).json()
    with pytest.raises(httpx.ReadTimeout):
        client.get(BATCH_PATH, timeout=0.2)
    assert client.get(BATCH_PATH).json() == []


@pytest.mark.parametrize("status", [404, 500])
def test_updates_of_one_record_can_fail_for_ever(site: SandboxSite, client: httpx.Client, status: Any) -> None:
    bad, good = site.store.add("job"), site.store.add("job")
    site.faults.record_always(bad, status)

    answers = [client.post(UPDATE_PATH, json={"id": n, "is_spam": True}).status_code for n in (bad, bad, good)]

    assert answers == [status, status, 200]


def test_deleted_record_is_unknown_and_deleted_content_is_delivered_without_its_id(
    site: SandboxSite, client: httpx.Client
) -> None:
    record, other = site.store.add("memberprofile", {"name": "A", "username": "a"}), site.store.add("job")
    site.store.delete_content(record)
    site.store.delete_record(other)

    (delivered,) = client.get(BATCH_PATH).json()

    assert delivered["contentObject"] == recorded("latest-batch-missing-keys.json")[-1]["contentObject"]
    assert client.post(UPDATE_PATH, json={"id": other, "is_spam": True}).status_code == 404


def test_seeded_items_are_the_same_again_mixed_and_labelled() -> None:
    items = labelled_items(250, 1)

    assert items == labelled_items(250, 1)
    assert items != labelled_items(250, 2)
    spam = sum(1 for item in items if item.label)
    assert spam == pytest.approx(SPAM_SHARE * 250, abs=2)
    by_type = Counter((item.content_type, bool(item.label)) for item in items)
    assert min(by_type.values()) >= 20
    assert len(by_type) == 8
    assert {len(labelled_items(count, 3)) for count in (0, 1, 7, 99)} == {0, 1, 7, 99}


def test_ten_thousand_seeded_items_have_distinct_texts() -> None:
    items = labelled_items(10_000, 1)

    texts = [json.dumps(item.content, sort_keys=True) for item in items if not item.gone and item.kind != "empty"]

    assert len(set(texts)) == len(texts)
    assert "{serial}" not in "".join(texts)


def test_labels_are_kept_beside_and_never_served(site: SandboxSite, client: httpx.Client) -> None:
    records = site.seed(100)

    batch = client.get(BATCH_PATH)

    assert {frozenset(record) for record in batch.json()} == {
        frozenset({"id", "contentType", "objectId", "contentObject"})
    }
    assert b"label" not in b"".join(json.dumps(sorted(r["contentObject"])).encode() for r in batch.json())
    assert set(site.store.labels()) == set(records)
    assert site.store.label(records[0]) in {True, False, None}
