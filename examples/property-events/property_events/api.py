"""A client of Sluice's HTTP/JSON API: one kept-alive connection, errors by reason, and the retries that the API documents.

What is retried here is harmless to repeat: reads, acknowledgements, changes with an idempotency key, and publishing, which may
store a record twice (the inbox drops repeats).
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from typing import Any, Callable
from urllib.parse import quote, urlencode, urlsplit

Json = dict[str, Any]

GROUP_IDS_PER_CALL = 1_000
RETRY_PAUSE_S = (0.05, 5.0)


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def retriable(self) -> bool:
        """The same call may succeed later."""
        return self.status in (429, 503, 504)


class Sluice:
    """Calls of one tenant in one namespace. Not for several threads."""

    def __init__(
        self,
        url: str,
        key: str,
        namespace: str,
        patience_s: float = 30.0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the address {url!r} must be http://host:port or https://host:port")
        self._connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._address = (parts.hostname, parts.port or (443 if secure else 80))
        self._connection: http.client.HTTPConnection | None = None
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.namespace = namespace
        self._patience_s = patience_s
        self._stop = stop

    # Records.

    def produce(self, topic: str, records: list[Json]) -> list[Json]:
        """Publishes; a result per record."""
        return list(self.call("POST", f"{self._topic(topic)}/records", {"records": records})["results"])

    def pull(self, group: str, max_records: int, wait_s: float) -> list[Json]:
        """The next records of a group; waits for a first one."""
        body = {"maxRecords": max_records, "wait": f"{wait_s}s", "encoding": "PAYLOAD_ENCODING_JSON"}
        return list(self.call("POST", f"{self._group(group)}:pull", body).get("records", []))

    def ack(self, group: str, ack_ids: list[str]) -> list[Json]:
        """Done with these; a result per id."""
        return self._settle(f"{self._group(group)}:ack", ack_ids, {})

    def nack(self, group: str, ack_ids: list[str], reason: str) -> list[Json]:
        """Not these: they come again after the group's backoff."""
        return self._settle(f"{self._group(group)}:nack", ack_ids, {"reason": reason})

    def group_status(self, group: str) -> Json:
        """How the group fares."""
        return self.call("GET", f"{self._group(group)}:status")

    def topic_metadata(self, topic: str) -> Json:
        """Partitions with their offsets."""
        return self.call("GET", f"{self._topic(topic)}:metadata")

    # Dead letters.

    def dead_letters(self, group: str) -> list[Json]:
        """All that the group put aside and that were not redriven."""
        found: list[Json] = []
        query = {"pageSize": GROUP_IDS_PER_CALL, "encoding": "PAYLOAD_ENCODING_JSON"}
        while True:
            page = self.call("GET", f"{self._group(group)}/deadLetters?{urlencode(query)}")
            found += page.get("deadLetters", [])
            if not page.get("nextPageToken"):
                return found
            query["pageToken"] = page["nextPageToken"]

    def redrive(self, group: str, ids: list[str], dry_run: bool = False) -> int:
        """Publishes dead letters once more to where they came from; how many."""
        redriven = 0
        for start in range(0, len(ids), GROUP_IDS_PER_CALL):
            body = {"ids": ids[start : start + GROUP_IDS_PER_CALL], "dryRun": dry_run}
            redriven += int(self.call("POST", f"{self._group(group)}/deadLetters:redrive", body).get("redriven", 0))
        return redriven

    # Resources.

    def create(self, parent: str, kind: str, identifier: str, resource: Json) -> None:
        """Makes a namespace, topic or group (`kind` is `namespaces`, `topics` or `groups`) unless it is there."""
        path = f"/v1/{parent}{'/' if parent else ''}{kind}?{kind[:-1]}Id={quote(identifier)}"
        try:
            self._change("POST", path, resource)
        except ApiError as error:
            if error.reason != "RESOURCE_EXISTS":
                raise

    def delete(self, name: str) -> None:
        """Removes a resource; one that is absent is removed already."""
        try:
            self._change("DELETE", f"/v1/{name}", None)
        except ApiError as error:
            if error.status != 404:
                raise

    def _change(self, method: str, path: str, body: Json | None) -> None:
        answer = self.call(method, path, body, {"Idempotency-Key": str(uuid.uuid4())})
        until = time.monotonic() + self._patience_s
        # A namespace comes back as it is; a topic or group as an operation that is done, or soon.
        while str(answer.get("name", "")).startswith("operations/") and not answer.get("done"):
            if time.monotonic() > until:
                raise TimeoutError(f"{method} {path}: {answer['name']} is not done after {self._patience_s:.0f} s")
            time.sleep(0.1)
            answer = self.call("GET", f"/v1/{answer['name']}")
        if "error" in answer:
            raise ApiError(0, "OPERATION_FAILED", f"{method} {path}: {answer['error'].get('message')}")

    # The wire.

    def call(self, method: str, path: str, body: Json | None = None, headers: dict[str, str] | None = None) -> Json:
        """One call, repeated while that may help, at most for the client's patience."""
        until = time.monotonic() + self._patience_s
        pause, longest = RETRY_PAUSE_S
        while True:
            try:
                return self._once(method, path, body, headers or {})
            except ApiError as error:
                failure: Exception = error
                if not error.retriable:
                    raise
                wait = error.retry_after_s if error.retry_after_s is not None else pause
            except (OSError, http.client.HTTPException) as error:
                failure, wait = error, pause
            pause = min(2 * pause, longest)
            if self._stop() or time.monotonic() + wait > until:
                raise failure
            time.sleep(wait)

    def _once(self, method: str, path: str, body: Json | None, headers: dict[str, str]) -> Json:
        if self._connection is None:
            self._connection = self._connect(*self._address, timeout=40)
        text = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, text, {**self._headers, **headers})
            answer = self._connection.getresponse()
            data = answer.read()
        except BaseException:
            self.close()
            raise
        # 207 is a success in which some parts are not.
        if answer.status in (200, 207):
            parsed: Json = json.loads(data)
            return parsed
        raise _error(answer.status, data, answer.getheader("retry-after-ms"), answer.getheader("retry-after"))

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _settle(self, path: str, ack_ids: list[str], more: Json) -> list[Json]:
        return self.call("POST", path, {"ackIds": ack_ids, **more})["results"] if ack_ids else []

    def _topic(self, topic: str) -> str:
        return f"/v1/namespaces/{self.namespace}/topics/{quote(topic)}"

    def _group(self, group: str) -> str:
        return f"/v1/namespaces/{self.namespace}/groups/{quote(group)}"


def _error(status: int, data: bytes, after_ms: str | None, after_s: str | None) -> ApiError:
    try:
        error = json.loads(data)["error"]
        message = str(error.get("message", ""))
        reasons = [detail["reason"] for detail in error.get("details", []) if "reason" in detail]
    except (ValueError, KeyError, TypeError):
        message, reasons = data[:200].decode(errors="replace"), []
    wait = float(after_ms) / 1_000 if after_ms else float(after_s) if after_s else None
    return ApiError(status, reasons[0] if reasons else "", message, wait)
