"""The local generator on a tiny Qwen3-VL with the real classes, which is taught what to answer."""

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
def untaught(tmp_path_factory):
    return tiny_qwen3_vl.write(tmp_path_factory.mktemp("tiny"))


def teach(untaught, folder, *replies):
    """A copy of the checkpoint that was trained until it gives these replies, turn by turn."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(untaught)
    processor = AutoProcessor.from_pretrained(untaught)
    talk = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": instructions(Outfit)}],
        },
    ]
    batches = []
    for reply in replies:
        prompt = processor.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
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
        talk += [
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
def taught(untaught, tmp_path_factory):
    return teach(untaught, tmp_path_factory.mktemp("taught"), GOOD)


def test_answers_fill_the_schema_and_stay_on_this_machine(taught, tmp_path):
    writer = generator(taught, device="cpu")
    check_metadata_generator(writer, PEOPLE)
    assert not writer.sends_photos
    with Store(tmp_path / "store.sqlite") as store:
        found = annotate(PEOPLE, writer, store)  # nobody has to allow anything
        assert [profile.metadata for profile in found.profiles] == [
            Outfit(garment="coat", layers=2)
        ] * 3
        assert found.usage.usd == 0
        assert found.usage.output_tokens > 30
        assert annotate(PEOPLE, writer, store).asked == 0


def test_batches_give_what_single_photos_give(taught):
    tall = Profile("tall", (photo(1).resize((64, 160)),))
    alone = generator(taught, batch_size=1).generate([*PEOPLE, tall])
    together = generator(taught, batch_size=4).generate([*PEOPLE, tall])
    assert alone == together


def test_a_wrong_answer_is_asked_for_once_more(untaught, tmp_path):
    mended = generator(teach(untaught, tmp_path / "mended", BAD, GOOD))
    seen = []
    (outcome,) = mended.generate(PEOPLE[:1], lambda index, outcome, usage: seen.append(usage))
    assert outcome == Outfit(garment="coat", layers=2)
    tokens = mended._processor.tokenizer
    assert seen[0].output_tokens == len(tokens(BAD)["input_ids"]) + len(
        tokens(GOOD)["input_ids"]
    )  # both count


def test_an_untaught_model_is_cut_or_invalid_and_the_rest_goes_on(untaught, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no")
    people = [
        Profile("broken", (tmp_path / "broken.jpg",)),
        *PEOPLE,
        Profile("thin", (photo(0).resize((1000, 4)),)),
    ]
    outcomes = generator(untaught, max_output_tokens=8, batch_size=2).generate(people)
    assert [outcome.kind for outcome in outcomes] == [
        "unreadable",
        "truncated",
        "truncated",
        "truncated",
        "unreadable",
    ]
    assert all("reply: " in outcome.detail for outcome in outcomes[1:4])


def test_the_prompt_names_every_attribute_and_choice():
    words = instructions(Outfit)
    assert '- "garment" (one of "coat", "dress"): What is worn.' in words
    assert '- "layers" (a whole number): layers' in words
    assert "<|im_start|>" not in words


def test_what_cannot_be_loaded_is_explained(tmp_path):
    with pytest.raises(
        GeneratorError, match=r"/nowhere does not exist. Name the checkpoint with model="
    ):
        generator("/nowhere").generate(PEOPLE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        GeneratorError, match="is a 'bert' checkpoint; 'qwen3-vl' loads 'qwen3_vl' alone"
    ):
        generator(tmp_path).generate(PEOPLE)
    with pytest.raises(
        ConfigurationError, match=r"longest_side_px must be at least 32.*batch_size must be"
    ):
        Qwen3VLMetadata(longest_side_px=1, batch_size=0)


def test_a_matcher_takes_it_by_name(taught, tmp_path):
    matcher = Matcher(
        backbone=("qwen3-vl-2b", {"model": str(taught)}),
        metadata=("qwen3-vl", {"model": str(taught), "schema": Outfit, "max_output_tokens": 60}),
        head="identity",
        store=tmp_path / "store.sqlite",
        device="cpu",
    )
    assert matcher.annotate(PEOPLE)[0].metadata == Outfit(garment="coat", layers=2)
    assert matcher.embed(PEOPLE).shape == (3, 64)
