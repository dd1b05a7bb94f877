"""The local generator with a tiny Qwen3-VL that is trained to return chosen answers."""

import json
from typing import Literal

import numpy as np
import pytest
import tiny_qwen3_vl
import torch
from PIL import Image
from pydantic import BaseModel, Field

from pairmatch import Matcher, Profile
from pairmatch.core.errors import ConfigurationError, GeneratorError
from pairmatch.io.store import Store
from pairmatch.metadata import annotate
from pairmatch.metadata.qwen3_vl import _REPAIR, Qwen3VLMetadata
from pairmatch.metadata.schema import instructions, read_reply
from pairmatch.testing import check_metadata_generator


class Outfit(BaseModel):
    garment: Literal["coat", "dress"] = Field(description="What is worn.")
    layers: int


GOOD = '{"garment": "coat", "layers": 2}'
BAD = '{"garment": "hat"}'


def photo(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8))


PEOPLE = [Profile(f"p{seed}", (photo(seed),)) for seed in range(3)]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return tiny_qwen3_vl.write(tmp_path_factory.mktemp("tiny"))


def train(untrained, folder, *replies):
    """Trains a copy of the checkpoint until it returns these replies, turn by turn."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(untrained)
    processor = AutoProcessor.from_pretrained(untrained)
    conversation = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": instructions(Outfit)}],
        },
    ]
    batches = []
    for reply in replies:
        prompt = processor.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=True
        )
        batch = processor(
            text=[prompt + reply + "<|im_end|>"],
            images=[[PEOPLE[0].images[0]]],
            size={"shortest_edge": 4096, "longest_edge": 513**2},
            return_tensors="pt",
        )
        batch["labels"] = batch["input_ids"].clone()
        batch["labels"][:, : -len(processor.tokenizer(reply)["input_ids"]) - 1] = -100
        batches.append(batch)
        problem = read_reply(Outfit, reply)
        conversation += [
            {"role": "assistant", "content": [{"type": "text", "text": reply}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": _REPAIR.format(problem=problem)}],
            },
        ]
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _step in range(300):
        losses = [model(**batch).loss for batch in batches]
        if max(losses) < 0.05:
            break
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert max(losses) < 0.05
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def generator(folder, **options):
    return Qwen3VLMetadata(
        **{
            "model": folder,
            "schema": Outfit,
            "max_output_tokens": 60,
            "dtype": "float32",
            **options,
        }
    )


@pytest.fixture(scope="module")
def trained(untrained, tmp_path_factory):
    return train(untrained, tmp_path_factory.mktemp("trained"), GOOD)


def test_answers_fill_the_schema_without_consent(trained, tmp_path):
    writer = generator(trained, device="cpu")
    check_metadata_generator(writer, PEOPLE)
    assert not writer.sends_photos
    with Store(tmp_path / "store.sqlite") as store:
        annotation = annotate(PEOPLE, writer, store)  # without allow_upload
        assert [profile.metadata for profile in annotation.profiles] == [
            Outfit(garment="coat", layers=2)
        ] * 3
        assert annotation.usage.usd == 0
        assert annotation.usage.output_tokens > 30
        assert annotate(PEOPLE, writer, store).asked == 0


def test_batching_does_not_change_the_outcomes(trained):
    tall = Profile("tall", (photo(1).resize((64, 160)),))
    single = generator(trained, batch_size=1).generate([*PEOPLE, tall])
    batched = generator(trained, batch_size=4).generate([*PEOPLE, tall])
    assert single == batched


def test_invalid_answers_are_requested_again_once(untrained, tmp_path):
    repaired = generator(train(untrained, tmp_path / "repaired", BAD, GOOD))
    costs = []
    (outcome,) = repaired.generate(PEOPLE[:1], lambda index, outcome, usage: costs.append(usage))
    assert outcome == Outfit(garment="coat", layers=2)
    tokenizer = repaired._processor.tokenizer
    assert costs[0].output_tokens == len(tokenizer(BAD)["input_ids"]) + len(
        tokenizer(GOOD)["input_ids"]
    )  # both replies count


def test_refusals_do_not_stop_the_other_photos(untrained, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no")
    people = [
        Profile("broken", (tmp_path / "broken.jpg",)),
        *PEOPLE,
        Profile("thin", (photo(0).resize((1000, 4)),)),
    ]
    outcomes = generator(untrained, max_output_tokens=8, batch_size=2).generate(people)
    assert [outcome.kind for outcome in outcomes] == [
        "unreadable",
        "truncated",
        "truncated",
        "truncated",
        "unreadable",
    ]
    assert all("reply: " in outcome.detail for outcome in outcomes[1:4])


def test_the_prompt_lists_every_attribute_and_choice():
    prompt = instructions(Outfit)
    assert '- "garment" (one of "coat", "dress"): What is worn.' in prompt
    assert '- "layers" (a whole number): layers' in prompt
    assert "<|im_start|>" not in prompt


def test_loading_errors_are_explained(tmp_path):
    with pytest.raises(
        GeneratorError, match=r"/nowhere does not exist. Name the checkpoint with model="
    ):
        generator("/nowhere").generate(PEOPLE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        GeneratorError, match="is a 'bert' checkpoint; 'qwen3-vl' loads only 'qwen3_vl' checkpoints"
    ):
        generator(tmp_path).generate(PEOPLE)
    with pytest.raises(
        ConfigurationError, match=r"longest_side_px must be at least 32.*batch_size must be"
    ):
        Qwen3VLMetadata(longest_side_px=1, batch_size=0)


def test_a_matcher_creates_the_generator_by_name(trained, tmp_path):
    matcher = Matcher(
        backbone=("qwen3-vl-2b", {"model": str(trained)}),
        metadata=("qwen3-vl", {"model": str(trained), "schema": Outfit, "max_output_tokens": 60}),
        head="identity",
        store=tmp_path / "store.sqlite",
        device="cpu",
    )
    assert matcher.annotate(PEOPLE)[0].metadata == Outfit(garment="coat", layers=2)
    assert matcher.embed(PEOPLE).shape == (3, 64)
