"""A backbone with token states: image patches through a frozen projection.

Replace the projection with your model.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pairmatch import Backbone, Item, TokenStates
from pairmatch.io.images import load_image


class PatchesBackbone(Backbone):
    """Patches of each photo, projected by a fixed random matrix, in place of a vision transformer.

    Args:
        patch_px: Side length of a patch, in pixels.
        size_px: Side length of the square that a photo is scaled to, in pixels.
        width: Width D of the token states.
        seed: Seed for the projection.
    """

    # Every pooler works: `forward` returns states, mask, image_mask and end
    default_pooler: ClassVar[str] = "mean"

    def __init__(
        self, *, patch_px: int = 16, size_px: int = 96, width: int = 128, seed: int = 0
    ) -> None:
        if patch_px < 1 or size_px % patch_px:
            raise ValueError(
                f"`PatchesBackbone`: patch_px must divide size_px, got {patch_px} and {size_px}."
            )
        self.patch_px = patch_px
        self.size_px = size_px
        self.width = width
        self.seed = seed

    @property
    def dim(self) -> int:
        return self.width

    @cached_property
    def _model(self) -> Tensor:
        """The model, loaded on first use.

        Replace it with `AutoModel.from_pretrained(...)`, in evaluation mode, on its device.
        """
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(3 * self.patch_px**2, self.width, generator=generator) / self.patch_px

    def prepare(self, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Patches of all photos of each person, padded to the longest, and a mask of real patches.

        Called in worker threads.
        """
        people = [torch.cat([self._patches(image) for image in item.images]) for item in items]
        pixels = torch.nn.utils.rnn.pad_sequence(people, batch_first=True)
        lengths = torch.tensor([len(patches) for patches in people])
        return pixels, torch.arange(pixels.shape[1])[None, :] < lengths[:, None]

    def forward(self, batch: tuple[Tensor, Tensor]) -> TokenStates:
        """Runs the model; gradients are already disabled."""
        pixels, mask = batch
        states = torch.tanh(pixels @ self._model)
        return TokenStates(states=states, mask=mask, image_mask=mask, end=mask.sum(1) - 1)

    def length(self, item: Item) -> int:
        """Number of tokens of a person; people of similar length share a batch."""
        return len(item.images) * (self.size_px // self.patch_px) ** 2

    def fingerprint(self) -> Mapping[str, Any]:
        """Everything that can change a vector.

        If something is missing, the store returns stale vectors after it changes.
        """
        return {
            "backbone": "patches",
            "format": 1,  # increment it if a code change affects the output
            "patch_px": self.patch_px,
            "size_px": self.size_px,
            "width": self.width,
            "seed": self.seed,
            "torch": torch.__version__,
            "pillow": version("pillow"),
        }

    def _patches(self, image: Any) -> Tensor:
        """[T, 3 · patch_px²] float32 in [−1, 1]."""
        square = load_image(image, longest_side_px=2 * self.size_px).resize(
            (self.size_px, self.size_px)
        )
        count = self.size_px // self.patch_px
        pixels = torch.from_numpy(np.asarray(square, np.float32) / 127.5 - 1)
        grid = pixels.reshape(count, self.patch_px, count, self.patch_px, 3)
        return grid.permute(0, 2, 1, 3, 4).reshape(count**2, -1)
