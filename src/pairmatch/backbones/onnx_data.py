"""Finds the files in which an ONNX model keeps its weights, without the package onnx."""

from __future__ import annotations

from collections.abc import Iterator

# Fields of onnx.proto that lead to tensors: message, then field number, then message
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_MOST_DEPTH = 100


def external_files(model: bytes) -> list[str]:
    """Names of the files that hold weights of a model, sorted.

    Args:
        model: Bytes of an ONNX file.

    Raises:
        ValueError: The bytes are not a protobuf message, or it is nested too deeply.
    """
    return sorted(set(_locations(memoryview(model), "model", 0)))


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MOST_DEPTH:
        raise ValueError("its graphs are nested too deeply")
    for number, content in _fields(message):
        child = _FIELDS[kind].get(number)
        if child == "entry":
            entry = dict(_fields(content))
            if bytes(entry.get(1, b"")) == b"location":
                yield bytes(entry.get(2, b"")).decode()
        elif child is not None:
            yield from _locations(content, child, depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that holds bytes; numbers are passed over."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        wire = tag & 7
        if wire == 0:
            _, position = _varint(message, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        elif wire == 2:
            length, position = _varint(message, position)
            if position + length > len(message):
                raise ValueError("it is cut off")
            yield tag >> 3, message[position : position + length]
            position += length
        else:
            raise ValueError("it is not an ONNX file")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it is cut off")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("it is not an ONNX file")
