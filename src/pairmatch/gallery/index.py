"""People as a list of blocks that grows and shrinks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pairmatch.core.arrays import Floats, Vectors, check_vectors
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.ids import check_distinct, id_text
from pairmatch.core.text import has_surrogates, printable
from pairmatch.core.types import AttributeValue, Profile
from pairmatch.gallery.attributes import Attributes, fit_attributes, plain_attributes
from pairmatch.gallery.blocks import Block
from pairmatch.gallery.snapshot import Snapshot
from pairmatch.rules import Kind

_MAX_MERGED = 65_536  # people; smaller blocks in memory are merged


@dataclass(frozen=True, slots=True, eq=False)
class Additions:
    """People to add to a gallery, with valid vectors.

    Attributes:
        ids: N distinct ids.
        attributes: Attributes as galleries keep them.
        vectors: [N, K] float32.
        profiles: The profiles, unless ids were given.
    """

    ids: list[str]
    attributes: Sequence[Attributes]
    vectors: Vectors
    profiles: list[Profile]

    @classmethod
    def of(cls, people: Sequence[Profile] | Sequence[str], embeddings: Floats) -> Additions:
        """Validates the arguments of `Gallery.add`.

        Raises:
            ConfigurationError: The numbers of people and embeddings differ, an id occurs twice, or
                embeddings are not finite.
        """
        profiles = [person for person in people if isinstance(person, Profile)]
        if isinstance(people, str):
            raise ConfigurationError(
                f"`add(people)` takes a list of people: write [{printable(people)!r}] for one."
            )
        ids = [id_text(person.id if isinstance(person, Profile) else person) for person in people]
        attributes = _plain(ids, people)
        if not ids and len(embeddings) == 0:
            return cls([], [], np.empty((0, 0), np.float32), [])
        check_vectors("embeddings", embeddings)
        if len(ids) != len(embeddings):
            raise ConfigurationError(
                f"Each person needs one embedding, got {len(ids)} people and {len(embeddings)} "
                "embeddings."
            )
        repeated = [person for person, count in Counter(ids).items() if count > 1]
        if repeated:
            raise ConfigurationError(
                "A gallery holds each person once; these ids occur more than once: "
                f"{', '.join(map(printable, repeated[:5]))}{', …' if len(repeated) > 5 else ''}."
            )
        check_distinct(ids)
        return cls(ids, attributes, np.ascontiguousarray(embeddings, np.float32), profiles)

    def fitted(
        self, width: int | None, kinds: Mapping[str, Kind]
    ) -> tuple[Additions, dict[str, Kind]]:
        """The people with attributes of the kinds that a gallery has, and its kinds with theirs.

        Args:
            width: K of the gallery's embeddings; None if none was ever added.
            kinds: Kinds of the gallery's attributes.

        Raises:
            ConfigurationError: Widths differ, or an attribute has two kinds.
        """
        if width is not None and self.vectors.shape[1] != width:
            raise ConfigurationError(
                f"The gallery's embeddings are {width} wide, those of the added people "
                f"{self.vectors.shape[1]}."
            )
        attributes, merged = fit_attributes(self.ids, self.attributes, kinds)
        changed = {
            person: row
            for person, row, given in zip(self.ids, attributes, self.attributes, strict=True)
            if row != given
        }
        profiles = [
            dataclasses.replace(profile, attributes=changed[profile.id])
            if profile.id in changed
            else profile
            for profile in self.profiles
        ]
        return Additions(self.ids, attributes, self.vectors, profiles), merged


def _plain(
    ids: Sequence[str], people: Sequence[Profile] | Sequence[str]
) -> list[dict[str, AttributeValue]]:
    """Attributes as galleries keep them, of people whose ids can be kept."""
    rows = []
    problems = []
    for name, person in zip(ids, people, strict=True):
        try:
            if has_surrogates(name):
                raise ConfigurationError("The id holds characters that are not valid Unicode.")
            rows.append(plain_attributes(person.attributes if isinstance(person, Profile) else {}))
        except ConfigurationError as error:
            problems.append(f"{printable(name)}: {error}")
    if problems:
        more = f" And {len(problems) - 5} more people." if len(problems) > 5 else ""
        raise ConfigurationError(f"People cannot be added. {' '.join(problems[:5])}{more}")
    return rows


class BlockIndex:
    """Blocks of people in the order of addition; not safe for use by several threads at once.

    Attributes:
        kinds: Kind of each attribute, by name.
        width: K of the embeddings; None if none was ever added.
    """

    def __init__(self, width: int | None = None) -> None:
        self.kinds: dict[str, Kind] = {}
        self.width = width
        self._mapped: list[Block] = []
        self._recent: list[Block] = []  # each larger than the next, so that merging stays cheap

    @property
    def blocks(self) -> list[Block]:
        """All blocks, in order."""
        return [*self._mapped, *self._recent]

    def snapshot(self) -> Snapshot:
        """The current people."""
        return Snapshot(self.blocks, dict(self.kinds), self.width)

    def add(self, ids: Sequence[str], attributes: Sequence[Attributes], vectors: Vectors) -> None:
        """Adds people; people with an existing id are replaced."""
        attributes, self.kinds = fit_attributes(ids, attributes, self.kinds)
        self.width = vectors.shape[1]
        self._remove(pa.array(ids, pa.string()))
        recent = [*self._recent, Block.from_people(ids, attributes, vectors)]
        while (
            len(recent) > 1
            and 2 * len(recent[-1]) >= len(recent[-2])
            and len(recent[-1]) + len(recent[-2]) <= _MAX_MERGED
        ):
            recent[-2:] = [Block.merged(recent[-2:])]
        self._recent = recent

    def add_mapped(self, blocks: Sequence[Block]) -> None:
        """Adds blocks unchanged; they hold each person once.

        Raises:
            ConfigurationError: An attribute has another kind than in earlier blocks.
        """
        if self.blocks and blocks:
            self._remove(pa.concat_arrays([ids for block in blocks for ids in block.ids.chunks]))
        for block in blocks:
            self._mapped.append(block)
            for name, kind in block.kinds.items():
                if self.kinds.setdefault(name, kind) != kind:
                    raise ConfigurationError(
                        f"The attribute {printable(name)!r} is {kind} and {self.kinds[name]}."
                    )
            self.width = block.vectors.shape[1]

    def remove(self, ids: Sequence[str]) -> None:
        """Removes people; ids that are not in the index are ignored."""
        if ids:
            self._remove(pa.array(ids, pa.string()))

    def present(self, ids: Sequence[str]) -> list[str]:
        """Returns those of the ids that are in the index, in the order given."""
        present = self.snapshot().present(ids)
        return [person for person in ids if person in present]

    def drop_removed(self) -> None:
        """Frees the memory of people that were removed from blocks in memory."""
        self._recent = [Block.merged([block]) for block in self._recent if block.alive.any()]

    def _remove(self, ids: pa.Array) -> None:
        self._mapped = [block.without(ids) for block in self._mapped]
        self._recent = [block.without(ids) for block in self._recent]
