"""Answers of a server, lines of batches, and exported metadata."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

from .api import ANSWER, BatchServer, Server, about, error, generator, reply, text
from .mutations import TEXTS, hostile_value, json_bytes, mutate_bytes, mutate_json, mutate_text
from .people import crowd
from .subject import Case, Subject, copy
from .workers import KEY

_PEOPLE = 3
_STATUSES = (200, 200, 200, 200, 400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503)
_CODES = (
    *("invalid_prompt", "content_policy_violation", "content_filter", "invalid_json_schema"),
    *("unsupported_parameter", "insufficient_quota", "rate_limit_exceeded", "server_error"),
)
_BODY_STATUSES = ("failed", "cancelled", "in_progress", "queued", "incomplete", "completed", "?")


class Answers(Subject):
    """Answers of a server, read by the real client and kept in a store."""

    name = "answers"
    weight = 16

    def __init__(self) -> None:
        self._server: Any = None

    def prepare(self, corpus: Path) -> None:
        crowd(_PEOPLE, corpus / "photos")

    def write(self, case: Case) -> None:
        for number in range(_PEOPLE):
            status, body = _answer(case.rng)
            (case.input / f"{number}-{status}.json").write_bytes(body)

    def use(self, case: Case) -> None:
        from pairmatch.io.store import Store
        from pairmatch.metadata import annotate, export_metadata, import_metadata

        self._server = self._server or Server(about).__enter__()
        server = self._server
        files = sorted(case.input.iterdir())
        server.requests.clear()
        people = crowd(_PEOPLE, case.output / "photos")

        def scripted(number: int, body: Any) -> Any:
            file = files[number % len(files)]
            return int(file.stem.partition("-")[2]), file.read_bytes(), {}

        options: dict[str, Any] = {"allow_upload": True}
        maker = generator(server.url)
        with Store(case.output / "store.sqlite") as store:
            server.behave = scripted
            first = case.attempt(lambda: annotate(people, maker, store, **options))
            server.behave = about
            # Whatever was kept can be read, and what was not is asked again
            second = annotate(people, maker, store, **options)
            left = {refusal.kind for refusal in second.refused.values()}
            case.expect("error" not in left, f"an error was not asked again: {second.refused}")
            server.requests.clear()
            annotate(people, maker, store, **options)
            case.expect(not server.requests, "a kept answer was asked again")
            exported = [case.output / f"export{suffix}" for suffix in (".jsonl", ".csv")]
            for path in exported:
                export_metadata(path, people, maker, store)
                with Store(case.output / f"again{path.suffix}.sqlite") as other:
                    case.attempt(
                        lambda path=path, other=other: import_metadata(path, people, maker, other)
                    )
        case.expect(first is None or KEY not in str(first), "the key is in a message")
        case.expect(not any(KEY in message for message in case.refusals), "the key is in an error")
        for path in sorted(case.output.glob("*.*")):
            case.expect(KEY.encode() not in path.read_bytes(), f"the key is in {path.name}")
            case.expect(path.stat().st_size < 1_000_000, f"{path.name} is larger than 1 MB")


def _answer(rng: random.Random) -> tuple[int, bytes]:
    """Status and body of an answer."""
    status = rng.choice(_STATUSES)
    act = rng.randrange(10)
    value: Any
    if status != 200:
        _, value, _ = error(status, rng.choice((*TEXTS[:40], KEY, "x" * 295 + KEY)))
        value["error"]["code"] = rng.choice((*_CODES, None, 5, {}))
        value = mutate_json(rng, value) if act < 5 else value
    elif act < 2:
        content = json.dumps(mutate_json(rng, ANSWER))
        value = text(mutate_text(rng, content) if act else content)
    elif act == 2:
        value = reply([{"type": "refusal", "refusal": rng.choice((*TEXTS, {"a": 1}, KEY))}])
    elif act == 3:
        value = {**reply([], rng.choice(_BODY_STATUSES), "max_output_tokens"), "usage": None}
        value["error"] = rng.choice((None, {"code": "server_error", "message": KEY}, "text"))
    elif act == 4:
        value = text(json.dumps({**ANSWER, "caption": rng.choice((KEY, *TEXTS))}))
    elif act == 5:
        value = {**about(0, _REQUEST), "usage": mutate_json(rng, about(0, _REQUEST)["usage"])}
    elif act == 6:
        value = hostile_value(rng)
    else:
        value = mutate_json(rng, about(0, _REQUEST))
    body = json_bytes(value)
    return status, mutate_bytes(rng, body) if rng.random() < 0.15 else body


_PROSE = ("caption", "physical_features", "personality_impression", "corrections", "detail")
_REQUEST = {"input": [{"content": [{"image_url": "x"}]}]}


class Batches(Subject):
    """Output files of batches; no line keeps the others from being stored."""

    name = "batch"
    weight = 8

    def __init__(self) -> None:
        self._server: Any = None

    def prepare(self, corpus: Path) -> None:
        crowd(_PEOPLE, corpus / "photos")

    def write(self, case: Case) -> None:
        """Writes the seed of the changes: the lines name photos that are known only later."""
        (case.input / "seed").write_text(str(case.rng.randrange(2**32)))

    def use(self, case: Case) -> None:
        from pairmatch.io.store import Store
        from pairmatch.metadata.batch import annotate_in_batches

        self._server = self._server or BatchServer(about).__enter__()
        server = self._server
        for kept in (server.files, server.batches, server.deleted, server.requests):
            kept.clear()
        rng = random.Random((case.input / "seed").read_text())
        people = crowd(_PEOPLE, case.output / "photos")
        maker = generator(server.url)
        with Store(case.output / "store.sqlite") as store:

            def run() -> Any:
                return annotate_in_batches(people, maker, store, allow_upload=True)

            run()
            server.finish(answered=rng.choice((None, None, 1)))
            for batch in server.batches.values():
                name = batch.get(rng.choice(("output_file_id", "output_file_id", "error_file_id")))
                if name:
                    server.files[name] = _lines(rng, server.files[name])
                    (case.input / name).write_bytes(server.files[name])
                if rng.random() < 0.2:
                    field = rng.choice(("status", "output_file_id", "request_counts", "errors"))
                    batch[field] = rng.choice((None, "completed", "failed", "expired", "x", {}))
            case.attempt(run)
            for batch in server.batches.values():
                if batch["status"] not in ("completed", "failed", "expired"):
                    batch["status"] = "validating"  # a state that nobody knows does not last
            for _ in range(4):  # collects, asks again for what failed, collects
                server.finish()
                case.attempt(run)
            last = run().annotation
        stuck = {refusal.kind for refusal in last.refused.values()} & {"pending", "error"}
        case.expect(not stuck, f"{stuck} for ever: {last.refused}")


def _lines(rng: random.Random, content: bytes) -> bytes:
    """Lines of an output file, one or more of them hostile."""
    lines = content.splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(lines))
        act = rng.randrange(9)
        if act < 4:
            lines[at] = json_bytes(mutate_json(rng, json.loads(rng.choice(content.splitlines()))))
        elif act == 4:
            lines[at] = rng.choice((b"null", b"[]", b"{}", b"5", b'"x"', b"{", b"\xff"))
        elif act == 5:
            lines[at] = mutate_bytes(rng, lines[at])
        elif act == 6:
            lines[at] = json_bytes(hostile_value(rng))
        elif act == 7:
            lines.append(lines[at])
        else:
            lines.pop(at)
            lines = lines or [b""]
    return b"" if rng.random() < 0.05 else b"\n".join(lines)


class Exports(Subject):
    """Exported metadata and corrections that are edited, imported and exported again."""

    name = "exports"
    weight = 8

    def prepare(self, corpus: Path) -> None:
        from pairmatch.io.store import Store
        from pairmatch.metadata import annotate, correct, export_metadata

        people = crowd(6, corpus / "photos")
        with Server(about) as server, Store(corpus / "store.sqlite") as store:
            maker = generator(server.url)
            annotate(people, maker, store, allow_upload=True)
            corrections = [{"id": person.id, "caption": "mine"} for person in people[:2]]
            file = corpus / "corrections.jsonl"
            file.write_bytes(b"".join(json_bytes(row) + b"\n" for row in corrections))
            correct(file, people, maker, store)
            for suffix in (".csv", ".jsonl"):
                export_metadata(corpus / f"export{suffix}", people, maker, store)

    def write(self, case: Case) -> None:
        rng = case.rng
        suffix = rng.choice((".csv", ".jsonl"))
        content = (case.corpus / f"export{suffix}").read_bytes()
        if rng.random() < 0.2:
            content = mutate_bytes(rng, content)
        elif suffix == ".jsonl":
            lines = content.splitlines()
            at = rng.randrange(len(lines))
            row = json.loads(lines[at])
            if rng.random() < 0.5:
                row[rng.choice(_PROSE)] = rng.choice((*TEXTS, hostile_value(rng)))
            else:
                row = mutate_json(rng, row)
            lines[at] = json_bytes(row)
            content = b"\n".join(lines)
        else:
            rows = list(csv.reader(io.StringIO(content.decode())))
            for _ in range(rng.choice((1, 3))):
                name = rng.choice(_PROSE if rng.random() < 0.6 else rows[0])
                rng.choice(rows[1:])[rows[0].index(name)] = rng.choice(TEXTS)
            edited = io.StringIO()
            csv.writer(edited).writerows(rows)
            content = edited.getvalue().encode("utf-8", "surrogatepass")
        (case.input / f"edited{suffix}").write_bytes(content)
        copy(case.corpus / "photos", case.output / "photos")
        if rng.random() < 0.5:
            copy(case.corpus / "store.sqlite", case.output / "store.sqlite")

    def use(self, case: Case) -> None:
        from pairmatch.io.store import Store
        from pairmatch.metadata import correct, export_metadata, import_metadata

        path = next(case.input.iterdir())
        people = crowd(6, case.output / "photos")
        maker = generator("http://127.0.0.1:1/v1")
        with Store(case.output / "store.sqlite") as store:
            for act in (import_metadata, correct):
                case.attempt(lambda act=act: act(path, people, maker, store))
            for suffix in (".csv", ".jsonl"):
                target = case.output / f"again{suffix}"
                if not export_metadata(target, people, maker, store):
                    continue
                with Store(case.output / f"copy{suffix}.sqlite") as other:
                    import_metadata(target, people, maker, other)
                    kept, copied = (_outcomes(at, maker, people) for at in (store, other))
                    case.expect(kept == copied, "an export loses metadata")
                    ids = [person.id for person in people]
                    case.expect(
                        store.corrections(ids) == other.corrections(ids),
                        "an export loses corrections",
                    )


def _outcomes(store: Any, maker: Any, people: Any) -> dict[str, Any]:
    """Metadata and refusals in a store, without costs, by key."""
    from pairmatch.metadata.outcomes import generator_key, outcome_key

    keys = [outcome_key(generator_key(maker), person) for person in people]
    return {k: (v.get("metadata"), v.get("refusal")) for k, v in store.metadata(keys).items()}
