"""Plans a run before it starts: what is new, how long it takes and what it costs, offline."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pairmatch.core.arrays import check_count
from pairmatch.core.errors import ConfigurationError, MissingWeightsError, PairmatchError
from pairmatch.core.interfaces import Backbone, MetadataGenerator, Pooler
from pairmatch.core.types import Profile, Refusal, Usage
from pairmatch.features.fresh import fresh_features
from pairmatch.features.inputs import build_items, digest_items
from pairmatch.features.plan import ExtractionPlan
from pairmatch.features.prompt import check_template
from pairmatch.features.rates import CountsOperations, Rate, accelerator_rate, product_rate
from pairmatch.io.checkpoints import offline
from pairmatch.io.store import Store, content_key
from pairmatch.matcher.pipeline import FeaturePipeline, part_name
from pairmatch.matcher.work import BackbonePass, MetadataWork, WorkPlan
from pairmatch.metadata.annotate import AnnotationPlan
from pairmatch.metadata.generating import Spending

_TRIAL = 10  # photos, of which the first loads the model
_TRIAL_SECONDS = 60.0  # after which no further photo of a metadata trial is started


def plan_work(
    pipelines: Sequence[FeaturePipeline],
    people: Sequence[Profile],
    *,
    gpus: int = 1,
    usd_per_hour: float | None = None,
    accelerator: str | None = None,
) -> WorkPlan:
    """What some pipelines would do with people; passes that they share count once.

    Generates no metadata, sends nothing and needs no network. See `Matcher.plan`.
    """
    check_count("plan(gpus=...)", gpus)
    if usd_per_hour is not None and not 0 <= usd_per_hour < float("inf"):
        raise ConfigurationError(f"`plan(usd_per_hour=...)` must be 0 or more, got {usd_per_hour}.")
    rate = None if accelerator is None else accelerator_rate(accelerator)
    for pipeline in pipelines:
        if pipeline.prompt is not None:
            check_template(pipeline.prompt, people)
    with offline():
        works, described = _metadata_works(pipelines, people)
        groups: dict[str, list[_Reading]] = {}
        for pipeline in pipelines:
            for reading in _readings(pipeline, people, described):
                groups.setdefault(reading.key, []).append(reading)
        passes = [_merged(readings).plan(rate) for readings in groups.values()]
    return WorkPlan(len(people), tuple(works), tuple(passes), gpus, usd_per_hour)


def plan_metadata(
    people: Sequence[Profile],
    generator: MetadataGenerator,
    store: Store,
    *,
    gpus: int = 1,
    usd_per_hour: float | None = None,
    **options: bool,
) -> WorkPlan:
    """What `annotate` would do; generates nothing that is kept.

    Args:
        people: People.
        generator: The generator.
        store: Store with the answers so far.
        gpus: Number of devices that share the work of a local generator.
        usd_per_hour: Price of one of them.
        options: `retry_refused` and `batch`, as `estimate` takes them.
    """
    batch = options.pop("batch", False)
    with offline():
        plan = AnnotationPlan.of(people, generator, store, **options)
        work = _metadata_work(plan, batch=batch)
    return WorkPlan(len(people), (work,), (), gpus, usd_per_hour)


# --- metadata


@dataclass(frozen=True, slots=True)
class _Described:
    """People with the metadata that are stored.

    Attributes:
        profiles: All people.
        waiting: Ids of those whose metadata would be generated first.
    """

    profiles: Sequence[Profile]
    waiting: frozenset[str]


def _metadata_works(
    pipelines: Sequence[FeaturePipeline], people: Sequence[Profile]
) -> tuple[list[MetadataWork], dict[str, _Described]]:
    """Metadata to generate, and what is stored of them, by generator."""
    works: list[MetadataWork] = []
    described: dict[str, _Described] = {}
    for pipeline in pipelines:
        generator, key = pipeline.metadata, _generator_key(pipeline)
        if generator is None or key in described or not pipeline.reads_text:
            continue
        store = pipeline.feature_store.store
        plan = AnnotationPlan.of(people, generator, store)
        works.append(_metadata_work(plan))
        keys = plan.keys.items()
        waiting = frozenset(people[row].id for row, key in keys if key in plan.to_submit)
        described[key] = _Described(plan.annotation(store, Spending()).profiles, waiting)
    return works, described


def _generator_key(pipeline: FeaturePipeline) -> str:
    generator = pipeline.metadata
    return "" if generator is None else content_key(dict(generator.fingerprint()))


def _metadata_work(plan: AnnotationPlan, *, batch: bool = False) -> MetadataWork:
    estimate = plan.estimate(batch=batch)
    seconds: float | None = 0.0
    if plan.to_submit:
        seconds = None if plan.generator.sends_photos else _try_generator(plan)
    return MetadataWork(part_name("metadata", plan.generator), estimate, seconds)


def _try_generator(plan: AnnotationPlan) -> float | None:
    """Estimated seconds for the photos to submit, by a few of them; their answers are dropped."""
    sample = list(plan.to_submit.values())[:_TRIAL]
    times = [time.perf_counter()]

    def stop(_: int, __: Any, ___: Usage) -> bool:
        times.append(time.perf_counter())
        return times[-1] - times[0] > _TRIAL_SECONDS

    try:
        outcomes = plan.generator.generate(sample, stop)
    except PairmatchError:  # such as weights that are not here
        return None
    if len(times) < 2 or all(isinstance(outcome, Refusal) for outcome in outcomes):
        return None
    first = 1 if len(times) == 2 else 2  # the first photo loads the model
    return (times[-1] - times[first - 1]) / (len(times) - first) * len(plan.to_submit)


# --- backbones


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one backbone of a pipeline reads.

    Attributes:
        key: Equal for readings that share a pass.
        pipeline: The pipeline.
        backbone: The backbone.
        poolers: Its poolers.
        profiles: All people, with the metadata that are stored.
        waiting: Ids of people whose metadata the backbone reads, and which do not exist yet.
    """

    key: str
    pipeline: FeaturePipeline
    backbone: Backbone
    poolers: tuple[Pooler, ...]
    profiles: Sequence[Profile]
    waiting: frozenset[str]

    def plan(self, rate: Rate | None) -> BackbonePass:
        """The pass, timed by its operations at a given rate, or by a trial."""
        name = part_name("backbones", self.backbone)
        if any(getattr(self.backbone, value) is None for value in self.backbone.learned):
            count = len(self.profiles)
            return BackbonePass(name, count, count, 0, 0.0, "learns from the training people first")
        plan, keys = self._keys()
        ids = [profile.id for profile in self.profiles]
        of_person = dict(zip(ids, keys, strict=True))
        stored = set(keys) - {of_person[profile.id] for profile in self._missing(plan)}
        stored -= {of_person[person] for person in self.waiting}
        rows = dict(zip(reversed(keys), reversed(self.profiles), strict=True))
        new = [profile for key, profile in rows.items() if key not in stored][::-1]
        seconds, basis, tried = self._time(plan, new, rate)
        if self.waiting:
            count = len(self.waiting)
            basis += f"; {count} people without metadata yet count as new, with their text of now"
        return BackbonePass(name, len(rows), len(new), tried, seconds, basis)

    def _keys(self) -> tuple[ExtractionPlan | None, list[Any]]:
        """The plan of the extraction, and what is equal for people with the same input.

        Without weights there is no plan, because the keys in the store depend on them.
        """
        arguments = self.pipeline.prompt, self.pipeline.prompt_attributes
        try:
            self.backbone.fingerprint()
        except MissingWeightsError:
            items = build_items(self.profiles, self.backbone, *arguments)
            return None, list(digest_items(self.profiles, items, self.backbone))
        plan = self.pipeline.feature_store.plan(
            self.profiles,
            self.backbone,
            self.poolers,
            prompt=arguments[0],
            prompt_attributes=arguments[1],
        )
        return plan, list(plan.keys)

    def _missing(self, plan: ExtractionPlan | None) -> Sequence[Profile]:
        return self.profiles if plan is None else plan.missing

    def _time(
        self, plan: ExtractionPlan | None, new: Sequence[Profile], rate: Rate | None
    ) -> tuple[float | None, str, int]:
        """Seconds for new inputs on one device, what they rest on, and how many a trial did."""
        if not new:
            return 0.0, "", 0
        if rate is not None:
            operations = self._operations(new)
            if operations is not None:
                return rate.seconds(operations), _operations_text(operations, len(new), rate), 0
        try:
            if plan is not None:
                return self._try(plan, new)
        except MissingWeightsError:
            pass
        here = "the weights are not on this machine"
        operations = self._operations(new)
        if operations is None:
            return None, f"{here}, so the time is unknown", 0
        own = product_rate(self.backbone)
        return own.seconds(operations), f"{here}; {_operations_text(operations, len(new), own)}", 0

    def _operations(self, new: Sequence[Profile]) -> float | None:
        if not isinstance(self.backbone, CountsOperations):
            return None
        pipeline = self.pipeline
        items = build_items(new, self.backbone, pipeline.prompt, pipeline.prompt_attributes)
        try:
            counts = [self.backbone.operations(item) for item in items]
        except MissingWeightsError:  # not even the configuration is on this machine
            return None
        return None if None in counts else sum(count or 0.0 for count in counts)

    def _try(self, plan: ExtractionPlan, new: Sequence[Profile]) -> tuple[float, str, int]:
        """Times a few inputs; their features are stored unless metadata would change them."""
        if not self.waiting:
            measured = plan.measure(sample=_TRIAL - 1)
            tried = len(new) - len(measured.missing)
            return measured.seconds or 0.0, f"measured on {tried} photos, which are done", tried
        sample = new[:_TRIAL]
        self._run(sample[:1])
        start = time.perf_counter()
        timed = sample[1:] or sample
        self._run(timed)
        seconds = (time.perf_counter() - start) / len(timed)
        return seconds * len(new), f"measured on {len(sample)} photos", 0

    def _run(self, profiles: Sequence[Profile]) -> None:
        fresh_features(
            profiles,
            self.backbone,
            self.poolers,
            prompt=self.pipeline.prompt,
            prompt_attributes=self.pipeline.prompt_attributes,
        )


def _readings(
    pipeline: FeaturePipeline, people: Sequence[Profile], described: Mapping[str, _Described]
) -> Iterator[_Reading]:
    """What each distinct backbone of a pipeline reads."""
    stored = described.get(_generator_key(pipeline), _Described(people, frozenset()))
    for backbone, poolers in pipeline.distinct_backbones():
        text: list[Any] = []
        waiting: frozenset[str] = frozenset()
        if backbone.reads_text:
            waiting = stored.waiting
            items = build_items(
                stored.profiles, backbone, pipeline.prompt, pipeline.prompt_attributes
            )
            text = [_generator_key(pipeline) if waiting else "", *(item.text for item in items)]
        key = content_key(
            {
                "backbone": identity(backbone),
                "layers": list(getattr(backbone, "layers", ())),
                "text": text,
                "store": str(pipeline.feature_store.store.path),
                "dtype": pipeline.store_dtype,
            }
        )
        profiles = stored.profiles if backbone.reads_text else people
        yield _Reading(key, pipeline, backbone, tuple(poolers), profiles, waiting)


def _merged(readings: Sequence[_Reading]) -> _Reading:
    """One reading with the poolers of all."""
    poolers = {
        content_key(dict(pooler.fingerprint())): pooler
        for reading in readings
        for pooler in reading.poolers
    }
    return replace(readings[0], poolers=tuple(poolers.values()))


def identity(backbone: Backbone) -> Any:
    """The fingerprint; without weights, the name and options."""
    try:
        return dict(backbone.fingerprint())
    except MissingWeightsError:
        values = {key: repr(value) for key, value in vars(backbone).items() if key[0] != "_"}
        return [type(backbone).__name__, values]


def _operations_text(operations: float, inputs: int, rate: Rate) -> str:
    return f"{operations / inputs / 1e9:,.0f} GFLOP per input, at {rate}"
