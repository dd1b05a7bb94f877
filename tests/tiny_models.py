"""Writes tiny random checkpoints of sentence and image encoders with the real classes, offline."""

import torch

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}

_PATCHES = {**SMALL, "image_size": 32, "patch_size": 8}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
#: Classes of model and configuration, and options, of image encoders.
VISION = {
    # With their own small initial weights, these see all photos as nearly alike
    "vit": ("ViTModel", "ViTConfig", {**_PATCHES, "initializer_range": 0.2}),
    "deit": ("DeiTModel", "DeiTConfig", _PATCHES),
    "beit": (
        "BeitModel",
        "BeitConfig",
        {**_PATCHES, "initializer_range": 0.2, "layer_scale_init_value": 1.0},
    ),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**_PATCHES, "mlp_ratio": 2}),
    "dinov2-registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {**_PATCHES, "mlp_ratio": 2, "num_register_tokens": 2},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", {**_PATCHES, "num_register_tokens": 2}),
    "vit-mae": ("ViTMAEModel", "ViTMAEConfig", _PATCHES),
    "swin": (
        "SwinModel",
        "SwinConfig",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 2],
            "window_size": 4,
            "initializer_range": 0.2,
        },
    ),
    # Its own 1e-6 is what layers start from before they are pretrained
    "convnext": (
        "ConvNextModel",
        "ConvNextConfig",
        {**_STAGES, "image_size": 64, "layer_scale_init_value": 1.0},
    ),
    "resnet": ("ResNetModel", "ResNetConfig", {**_STAGES, "embedding_size": 8}),
}
_POSITIONS = {**SMALL, "max_position_embeddings": 66}
#: The same of text encoders.
TEXT = {
    "roberta": ("RobertaModel", "RobertaConfig", _POSITIONS),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaConfig", _POSITIONS),
    "mpnet": ("MPNetModel", "MPNetConfig", _POSITIONS),
    "albert": ("AlbertModel", "AlbertConfig", {**_POSITIONS, "embedding_size": 16}),
    "distilbert": (
        "DistilBertModel",
        "DistilBertConfig",
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2},
    ),
    "deberta-v2": (
        "DebertaV2Model",
        "DebertaV2Config",
        {
            **_POSITIONS,
            "relative_attention": True,
            "position_buckets": 16,
            "pos_att_type": ["p2c", "c2p"],
        },
    ),
    "t5": (
        "T5EncoderModel",
        "T5Config",
        {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    ),
    "modernbert": (
        "ModernBertModel",
        "ModernBertConfig",
        {**_POSITIONS, "cls_token_id": 0, "sep_token_id": 2},
    ),
    "qwen3": (
        "Qwen3Model",
        "Qwen3Config",
        {**_POSITIONS, "num_key_value_heads": 1, "head_dim": 16},
    ),
    "gpt2": ("GPT2Model", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
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


def vision(folder, kind, seed=0):
    """An image encoder by name: one of `VISION`."""
    import transformers
    from transformers import ViTImageProcessor

    model, config, options = VISION[kind]
    side = options.get("image_size", 32)
    folder.mkdir(parents=True, exist_ok=True)
    ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    built = getattr(transformers, config)(**options)
    return _save(lambda: getattr(transformers, model)(built), folder, seed)


def text(folder, kind, seed=0):
    """A text encoder by name that reads letters: one of `TEXT`."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    model, config, options = TEXT[kind]
    words = _letters_tokenizer(folder)
    built = getattr(transformers, config)(
        vocab_size=words, pad_token_id=1, bos_token_id=0, eos_token_id=2, **options
    )
    return _save(lambda: getattr(transformers, model)(built), folder, seed)


def _letters_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(f"##{c}" for c in letters)]
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=64,
    ).save_pretrained(folder)
    return len(words)


def _save(build, folder, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build().save_pretrained(folder)
    return folder
