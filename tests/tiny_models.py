"""Writes tiny random checkpoints of sentence and image encoders with the real classes, offline."""

import torch

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def bert(folder, seed=0, **options):
    """A BERT that reads letters; its dropout is 0.1, as in all BERT models."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return _save(
        lambda: BertModel(BertConfig(vocab_size=len(words), **SMALL, **options)), folder, seed
    )


def clip(folder, seed=0):
    """A CLIP with 16 patches of 8 pixels."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    config = CLIPConfig(
        text_config={**SMALL, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
    )
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return _save(lambda: CLIPModel(config), folder, seed)


def siglip(folder, seed=0):
    """A SigLIP with 16 patches of 8 pixels."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    config = SiglipConfig(
        text_config={**SMALL, "vocab_size": 64},
        vision_config={**SMALL, "image_size": 32, "patch_size": 8},
    )
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return _save(lambda: SiglipModel(config), folder, seed)


def _save(build, folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build().save_pretrained(folder)
    return folder
