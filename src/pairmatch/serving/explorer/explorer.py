"""What the explorer shows: matchers, galleries, photos and test pairs of a service."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pairmatch.core.errors import ImageError
from pairmatch.core.text import spelled
from pairmatch.core.types import Side
from pairmatch.data.matches import read_matches
from pairmatch.gallery import Gallery
from pairmatch.serving.explorer.exposure import Exposure, exposure
from pairmatch.serving.explorer.people import suggestions
from pairmatch.serving.explorer.photos import photos_by_id, small_photo
from pairmatch.serving.explorer.slates import Slates
from pairmatch.serving.explorer.walk import Walk, walk
from pairmatch.serving.photos import PhotoDecoder
from pairmatch.serving.problems import ProblemError
from pairmatch.serving.service import Service
from pairmatch.serving.settings import ExplorerSettings, ServiceSettings


class Explorer:
    """The explorer of one worker.

    Args:
        service: The service that is explored.
        settings: What is shown besides its people.
        decoder: Decodes photos.

    Raises:
        PairmatchError: Photos, test pairs or the second matcher cannot be read.
    """

    def __init__(self, service: Service, settings: ExplorerSettings, decoder: PhotoDecoder) -> None:
        self.settings = settings
        self.service = service
        self.slates: dict[str, Slates] = {"": Slates(service)}
        second = second_service(service.settings, settings)
        if second is not None:
            self.slates["second"] = Slates(second)
        sides = service.matcher.sides
        self._matches = (
            None if settings.pairs is None else read_matches(settings.pairs, sides=sides)
        )
        self._photos = photos_by_id(settings.photos)
        self._decoder = decoder

    @property
    def names(self) -> Mapping[str, str]:
        """Names of the matchers, which are those of their folders."""
        paths = {"": self.service.settings.matcher, "second": self.settings.matcher}
        return {key: path.name or "matcher" for key, path in paths.items() if path is not None}

    def has_photo(self, person: str) -> bool:
        """Whether a photo of a person is shown."""
        return spelled(person, self._photos) is not None

    def gallery(self, side: Side | None) -> Gallery:
        """The gallery of the people of a side.

        Raises:
            ProblemError: There is none.
        """
        galleries = self.service.galleries
        if side is None:
            side = next(iter(galleries))
        if side not in galleries:
            raise ProblemError("no-gallery", 404, f"The service has no gallery of side {side}.")
        return galleries[side]

    def suggestions(self, side: Side | None, prefix: str) -> list[str]:
        """At most 20 ids that begin with a prefix.

        Raises:
            ComputingError: The ids are being read.
        """
        return suggestions(self.slates[""].computed, self.gallery(side), prefix)

    def photo(self, person: str, side: Side | None) -> bytes:
        """A small JPEG of a person of a gallery.

        Raises:
            ImageError: No photo is shown, or the person is in no gallery.
        """
        galleries = self.service.galleries
        shown = [one for name, one in galleries.items() if side in (None, name)]
        if not any(person in gallery for gallery in shown):
            raise ImageError("There is no photo of this person.")
        return small_photo(self._photos, person, self._decoder)

    def exposure(self, side: Side, k: int) -> tuple[Exposure, float]:
        """Who is shown too often and never to people of a side, and the age of that in seconds.

        Raises:
            ComputingError: It is being computed.
        """
        slates = self.slates[""]
        bonus = None
        if "balanced" not in slates.unavailable():
            bonus = slates.bonuses()[self.service.candidates_of(side)]
        return slates.computed.get(
            ("exposure", side, k), lambda: exposure(self.service, side, k, bonus)
        )

    def walk(self) -> tuple[Walk, float] | None:
        """The test pairs, and the age of their ranks in seconds; None if none were given.

        Raises:
            ComputingError: They are being ranked.
        """
        matches = self._matches
        if matches is None:
            return None
        return self.slates[""].computed.get("walk", lambda: walk(self.service, matches))

    def close(self) -> None:
        """Ends threads, and the second matcher."""
        for slates in self.slates.values():
            slates.computed.close()
        if "second" in self.slates:
            self.slates["second"].service.close()


def second_service(settings: ServiceSettings, explorer: ExplorerSettings) -> Service | None:
    """The matcher to compare with, and its galleries; None if there is none."""
    if explorer.matcher is None:
        return None
    return Service(
        dataclasses.replace(settings, matcher=explorer.matcher, galleries=explorer.galleries)
    )
