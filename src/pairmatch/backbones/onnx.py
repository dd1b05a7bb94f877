"""Image encoders exported to ONNX, run by onnxruntime on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from pairmatch.backbones.onnx_data import external_files
from pairmatch.core.errors import BackboneError, ConfigurationError, missing_extra, unknown_name
from pairmatch.core.interfaces import Backbone
from pairmatch.core.types import Item, TokenStates
from pairmatch.io.checkpoints import weights_digest
from pairmatch.io.files import expand_user, read_file
from pairmatch.io.images import load_image

_MOST_BYTES = 2**31  # protobuf's own limit
Resize = Literal["squash", "crop", "pad"]


class ONNXBackbone(Backbone):
    """An image encoder in an ONNX file. Choose it for your own model, or if torch is too slow.

    A photo becomes a square of `size_px` with RGB values from 0 to 255, then (x − mean) / scale.
    The model's output, flattened to one vector per photo and averaged over a person's photos, is
    the pooled output; there are no token states.

    Args:
        path: The ONNX file. Weights in further files must lie in its folder.
        size_px: Side of the square input, in pixels.
        mean: Value subtracted from RGB values of 0 to 255: one number, or one per channel.
        scale: Divisor after the subtraction: one number, or one per channel.
        resize: `squash` ignores the aspect ratio, `crop` keeps the center, `pad` adds a border in
            the mean color.
        input: Name of the input; required if the model has several.
        output: Name of the output; None for the first.
        layout: Axis order of the input, `nchw` or `nhwc`.
        threads: Number of threads per run; None for onnxruntime's default.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ConfigurationError: An argument is out of range.
        BackboneError: At the first use, if the file is missing, is not an ONNX model, or lacks a
            named input or output.
    """

    default_pooler: ClassVar[str] = "native"

    def __init__(
        self,
        *,
        path: str | Path,
        size_px: int = 224,
        mean: float | Sequence[float] = 127.5,
        scale: float | Sequence[float] = 127.5,
        resize: Resize = "squash",
        input: str | None = None,
        output: str | None = None,
        layout: Literal["nchw", "nhwc"] = "nchw",
        threads: int | None = None,
    ) -> None:
        problems = [
            f"{name} must be one number or three, got {value!r}"
            for name, value in (("mean", mean), ("scale", scale))
            if not isinstance(value, int | float) and len(value) != 3
        ]
        if size_px < 1:
            problems.append(f"size_px must be positive, got {size_px}")
        if resize not in ("squash", "crop", "pad"):
            problems.append(f"resize must be 'squash', 'crop' or 'pad', got {resize!r}")
        if layout not in ("nchw", "nhwc"):
            problems.append(f"layout must be 'nchw' or 'nhwc', got {layout!r}")
        if not np.all(np.asarray(scale)):
            problems.append("scale must not be 0")
        if problems:
            raise ConfigurationError("`ONNXBackbone(...)`: " + "; ".join(problems) + ".")
        self.path = str(path)
        self.size_px = size_px
        self.mean = mean
        self.scale = scale
        self.resize: Resize = resize
        self.input = input
        self.output = output
        self.layout = layout
        self.threads = threads
        self.workers = 1

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing_extra("The backbone 'onnx'", "onnxruntime", "onnx") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        assert self._read_digests is not None
        try:
            # onnxruntime looks for further files beside the path, or in the current folder if it
            # gets bytes
            session = onnxruntime.InferenceSession(
                str(self._file) if self._external else self._content,
                options,
                providers=["CPUExecutionProvider"],
            )
        # onnxruntime's exceptions share no public base class
        except Exception as error:
            raise BackboneError(
                f"{self.path} is not a model that onnxruntime can run: {error}"
            ) from error
        if self._external_digests() != self._read_digests:
            raise BackboneError(
                f"The weights of {self.path} changed after they were first read: run again, and in "
                "Python make a new object."
            )
        inputs = [node.name for node in session.get_inputs()]
        outputs = [node.name for node in session.get_outputs()]
        if self.input is None and len(inputs) > 1:
            raise BackboneError(
                f"{self.path} has the inputs {', '.join(inputs)}: name one with input=."
            )
        for kind, name, names in (("input", self.input, inputs), ("output", self.output, outputs)):
            if name is not None and name not in names:
                raise BackboneError(f"{self.path}: {unknown_name(kind, name, names)}")
        return session

    @cached_property
    def _content(self) -> bytes:
        try:
            return read_file(self._file, most_bytes=_MOST_BYTES)
        except OSError as error:
            raise BackboneError(
                f"The ONNX file {self.path} cannot be read: {error.strerror}. Name it with path= "
                "(command line: --set backbone.path=FILE)."
            ) from error

    @property
    def _file(self) -> Path:
        return expand_user(self.path)

    @cached_property
    def _external(self) -> list[Path]:
        """Files in which the model keeps weights."""
        try:
            names = external_files(self._content)
        except ValueError as error:
            raise BackboneError(
                f"{self.path} is not a model that onnxruntime can run: {error}."
            ) from error
        folder = self._file.parent
        for name in names:
            path = PurePath(name)
            if path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
                raise BackboneError(
                    f"{self.path} names weights in {name!r}, which is not a file in the model's "
                    "folder: keep all files of the model together."
                )
        return [folder / name for name in names]

    @cached_property
    def _fixed_batch(self) -> int | None:
        size = self._session.get_inputs()[0].shape[0]
        return size if isinstance(size, int) else None

    @cached_property
    def dim(self) -> int:
        """Width P of the model's output per photo."""
        blank = np.zeros((1, self.size_px, self.size_px, 3), np.float32)
        return self._run(blank).shape[1]

    def prepare(self, items: Sequence[Item]) -> tuple[npt.NDArray[np.float32], list[int]]:
        """Decoded and scaled photos [all photos, height, width, 3] float32, and photo counts."""
        photos = [self._pixels(image) for item in items for image in item.images]
        mean, scale = np.asarray(self.mean, np.float32), np.asarray(self.scale, np.float32)
        pixels = (np.stack(photos).astype(np.float32) - mean) / scale
        return pixels.astype(np.float32, copy=False), [len(item.images) for item in items]

    def forward(self, batch: tuple[npt.NDArray[np.float32], list[int]]) -> TokenStates:
        """Runs the model and averages over each person's photos."""
        pixels, counts = batch
        vectors = self._run(pixels)
        starts = np.cumsum([0, *counts[:-1]])
        means = np.add.reduceat(vectors, starts, axis=0) / np.array(counts, np.float32)[:, None]
        return TokenStates(pooled=torch.from_numpy(means))

    def fingerprint(self) -> Mapping[str, Any]:
        """Digest of the file and its weights, preprocessing, output, and library versions."""
        return {
            "backbone": "onnx",
            "format": 1,
            "sha256": self._digest,
            "size_px": self.size_px,
            "mean": np.asarray(self.mean).tolist(),
            "scale": np.asarray(self.scale).tolist(),
            "resize": self.resize,
            "input": self.input,
            "output": self.output,
            "layout": self.layout,
            "onnxruntime": _version("onnxruntime"),
            "pillow": version("pillow"),
        }

    @cached_property
    def _digest(self) -> str:
        graph = hashlib.sha256(self._content).hexdigest()
        if not self._external:
            return graph
        return hashlib.sha256("\n".join([graph, *self._read_digests]).encode()).hexdigest()

    @cached_property
    def _read_digests(self) -> list[str]:
        """Digests of the files of weights, read once, before onnxruntime reads them."""
        return self._external_digests()

    def _external_digests(self) -> list[str]:
        return [f"{file.name} {weights_digest(file)}" for file in self._external]

    def _pixels(self, source: Any) -> npt.NDArray[np.uint8]:
        size = (self.size_px, self.size_px)
        photo = load_image(
            source, longest_side_px=None if self.resize == "crop" else 4 * self.size_px
        )
        if self.resize == "crop":
            photo = ImageOps.fit(photo, size, Image.Resampling.BICUBIC)
        elif self.resize == "pad":
            mean = np.broadcast_to(np.clip(np.asarray(self.mean), 0, 255), 3)
            color = tuple(round(float(channel)) for channel in mean)
            photo = ImageOps.pad(photo, size, Image.Resampling.BICUBIC, color=color)
        else:
            photo = photo.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(photo)

    def _run(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[photos, P] float32 for [photos, height, width, 3].

        Photos run one at a time if the model's batch size is fixed at 1.
        """
        session = self._session
        name = self.input or session.get_inputs()[0].name
        output = self.output or session.get_outputs()[0].name
        values = pixels.transpose(0, 3, 1, 2) if self.layout == "nchw" else pixels
        if self._fixed_batch not in (None, 1):
            raise BackboneError(
                f"{self.path} has a fixed batch size of {self._fixed_batch}: export it with a "
                "dynamic batch size."
            )
        chunks = np.split(values, len(values)) if self._fixed_batch == 1 else [values]
        try:
            outputs = [
                session.run([output], {name: np.ascontiguousarray(chunk)})[0] for chunk in chunks
            ]
        except Exception as error:  # no public base class, as above
            raise BackboneError(
                f"{self.path} cannot run on {list(values.shape)}; check size_px and layout: {error}"
            ) from error
        return np.concatenate(
            [np.asarray(part, np.float32).reshape(len(part), -1) for part in outputs]
        )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except ImportError as error:
        raise missing_extra("The backbone 'onnx'", distribution, "onnx") from error
