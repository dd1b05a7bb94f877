"""Profile attributes as features: numbers, ages, and categories of which a person may have several.

The columns are those of scikit-learn's `StandardScaler`, `OneHotEncoder(min_frequency=10,
handle_unknown="infrequent_if_exist")`, `MultiLabelBinarizer` and `MissingIndicator`, centered. What
they need is kept as plain JSON, which any version reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from pairmatch.backbones.attribute_encodings import ENCODINGS, FEWEST_PEOPLE, fit_encoding
from pairmatch.core.errors import ConfigurationError, DataError, NotFittedError, unknown_name
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.store import content_key


class AttributesBackbone(Backbone):
    """Numbers, dates, categories and sets of the profile. Choose it alone or beside another one.

    No attribute outweighs another: its columns are centered and their variances add up to 1 at
    most. A person without a value is at the mean, and a column says so if at least 10 training
    people have none. Unknown categories, text in a number and attributes that training people did
    not have change nothing else.

    Scales and categories are learned from training people. A column that does not tell at least 10
    of them from 10 others is left out, and rare categories share one column, so that no person can
    be read from a saved matcher.

    Args:
        leave_out: Names of attributes that are not read, such as protected traits; as one text,
            separated by commas.
        encodings: What `fit` learned, by name of the attribute; None before `fit`.

    Raises:
        ConfigurationError: `encodings` are damaged, or have an attribute that is left out.
    """

    reads_images = False
    reads_attributes = True
    default_pooler: ClassVar[str] = "native"
    learned: ClassVar[tuple[str, ...]] = ("encodings",)

    def __init__(
        self,
        *,
        leave_out: str | Sequence[str] = (),
        encodings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        if isinstance(leave_out, str):
            leave_out = [name.strip() for name in leave_out.split(",") if name.strip()]
        self.leave_out = tuple(leave_out)
        self.encodings = encodings
        try:
            checked = {} if encodings is None else ENCODINGS.validate_python(encodings)
        except ValidationError as error:
            details = "; ".join(
                f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5]
            )
            raise ConfigurationError(
                f"`AttributesBackbone(encodings=...)` is not what `fit` returns: {details}."
            ) from error
        used = sorted(checked.keys() & set(self.leave_out))
        if used:
            raise ConfigurationError(
                f"The backbone 'attributes' was fitted with {', '.join(used)}: to leave them out, "
                "fit again."
            )
        self._encodings = [(name, checked[name]) for name in sorted(checked)]
        self.max_batch_length = 1024
        self.workers = 1

    def fit(self, items: Sequence[Item]) -> AttributesBackbone:
        """Learns scales and categories from training people.

        Raises:
            ConfigurationError: No training person has an attribute of `leave_out`.
            DataError: No attribute tells at least 10 people from 10 others.
        """
        names = {name for item in items for name in item.attributes}
        unknown = [name for name in self.leave_out if name not in names]
        if unknown:
            what = "attribute in `AttributesBackbone(leave_out=...)`"
            raise ConfigurationError(" ".join(unknown_name(what, name, names) for name in unknown))
        encodings = {}
        for name in sorted(names.difference(self.leave_out)):
            encoding = fit_encoding([item.attributes.get(name) for item in items])
            if encoding is not None:
                encodings[name] = encoding.model_dump()
        if not encodings:
            raise DataError(
                f"The backbone 'attributes' can use no attribute of {len(items)} training people: "
                f"a column must tell at least {FEWEST_PEOPLE} of them from {FEWEST_PEOPLE} others "
                f"(attributes: {', '.join(sorted(names)) or 'none'})."
            )
        return AttributesBackbone(leave_out=self.leave_out, encodings=encodings)

    @property
    def dim(self) -> int:
        """Number of columns.

        Raises:
            NotFittedError: Before `fit`.
        """
        self._check_fitted()
        return sum(encoding.width for _, encoding in self._encodings)

    def prepare(self, items: Sequence[Item]) -> Tensor:
        """Columns of all attributes: [B, P] float32.

        Raises:
            NotFittedError: Before `fit`.
        """
        self._check_fitted()
        columns = [
            encoding.encode([item.attributes.get(name) for item in items])
            for name, encoding in self._encodings
        ]
        return torch.from_numpy(np.concatenate(columns, axis=1).astype(np.float32))

    def forward(self, batch: Tensor) -> TokenStates:
        """The columns as pooled output; there are no token states."""
        return TokenStates(pooled=batch)

    def fingerprint(self) -> Mapping[str, Any]:
        """Digest of what was learned; None before `fit`."""
        learned = {name: encoding.model_dump() for name, encoding in self._encodings}
        digest = None if self.encodings is None else content_key(learned)
        return {"backbone": "attributes", "format": 1, "encodings": digest}

    def _check_fitted(self) -> None:
        if self.encodings is None:
            raise NotFittedError(
                "The backbone 'attributes' learns scales and categories from training people: call "
                "`Matcher.fit` first."
            )
