"""LoRA layers inside the network of a backbone, for the time of a training run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from pairmatch.core.errors import ConfigurationError, missing_extra
from pairmatch.core.interfaces import Backbone
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.io.adapters import Adapter, base_sample

_NAME = "default"


def check_tunable(backbone: Backbone) -> None:
    """Checks that a backbone has a network that can be tuned.

    Raises:
        ConfigurationError: It has none, is tuned already, or is in float16.
        MissingExtraError: peft is not installed.
    """
    kind = type(backbone)
    if not is_tunable(backbone):
        raise ConfigurationError(
            f"{kind.__name__} cannot be fine-tuned: it offers no network. Use 'hf-vision' (CLIP, "
            "SigLIP, DINO, ViT), 'hf-text', 'qwen3-vl-2b' or 'qwen3-vl-embedding-2b'."
        )
    if getattr(backbone, "adapter", None) is not None:
        raise ConfigurationError(
            f"This {kind.__name__} has an adapter already: fine-tune the backbone without it."
        )
    if getattr(backbone, "_dtype", None) == torch.float16:
        raise ConfigurationError(
            "Fine-tuning in float16 would lose small gradients: use dtype='bfloat16' or 'float32'."
        )
    _peft()


def check_layers(backbone: Backbone, config: FinetuneConfig) -> None:
    """Checks that the network of a backbone has the layers that the hyperparameters ask for.

    It loads the network only if they name any.

    Raises:
        ConfigurationError: No layer has one of the names, or nothing can be computed twice.
    """
    if config.targets:
        _target_names(backbone.network, config.targets)  # type: ignore[attr-defined]
    if config.gradient_checkpointing:
        _checkpointed(backbone.network)  # type: ignore[attr-defined]


def is_tunable(backbone: Backbone) -> bool:
    """Whether a backbone takes an adapter and offers its network; loads nothing."""
    takes_adapter = "adapter" in inspect.signature(type(backbone)).parameters
    return takes_adapter and hasattr(type(backbone), "network")


def with_adapter(backbone: Backbone, adapter: Adapter) -> Backbone:
    """A new backbone with the options of another one, and an adapter."""
    names = inspect.signature(type(backbone)).parameters
    options = {name: getattr(backbone, name) for name in names}
    return type(backbone)(**{**options, "adapter": adapter})


class LoRALayers:
    """LoRA layers in a network: what is trained of a backbone.

    Args:
        network: The base model; its own weights never change.
        config: Rank, scale, dropout and targets.

    Raises:
        ConfigurationError: No layer has one of the names, or none is linear.
        MissingExtraError: peft is not installed.
    """

    def __init__(self, network: nn.Module, config: FinetuneConfig) -> None:
        peft = _peft()
        self.network = network
        self.config = config
        self.targets = _target_names(network, config.targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self._lora = peft.tuners.lora.LoraModel(
                network,
                peft.LoraConfig(
                    r=config.rank,
                    lora_alpha=config.alpha,
                    lora_dropout=config.dropout,
                    target_modules=self.targets,
                ),
                _NAME,
            )
        for weight in self.matrices().values():
            # peft takes the format of the base: in bfloat16, small steps would be rounded away
            weight.data = weight.data.float()

    def matrices(self) -> dict[str, nn.Parameter]:
        """The trained matrices by name: `<layer>.lora_A` [rank, inputs], `<layer>.lora_B`."""
        found = {}
        for name in self.targets:
            layer: Any = self.network.get_submodule(name)
            found[f"{name}.lora_A"] = layer.lora_A[_NAME].weight
            found[f"{name}.lora_B"] = layer.lora_B[_NAME].weight
        return found

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the matrices, float32, on the CPU."""
        return {
            name: weight.detach().float().cpu().clone() for name, weight in self.matrices().items()
        }

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Takes the values of a snapshot."""
        with torch.no_grad():
            for name, weight in self.matrices().items():
                weight.copy_(snapshot[name])

    def adapter(self, base: Mapping[str, Any]) -> Adapter:
        """The adapter, without layers that the features do not depend on (an unused pooler).

        Args:
            base: Fingerprint of the backbone.
        """
        snapshot = self.snapshot()
        weights: dict[str, Tensor] = {}
        for name in self.targets:
            a, b = snapshot[f"{name}.lora_A"], snapshot[f"{name}.lora_B"]
            if not b.any():  # it started at zero and never got a gradient
                continue
            layer: Any = self.network.get_submodule(name)
            weights |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
            weights[f"{name}.base"] = base_sample(layer.base_layer)
        origin = {key: base.get(key) for key in ("model", "weights")}
        return Adapter(weights, self.config.rank, float(self.config.alpha), origin)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The network in training mode for the block; statistics of BatchNorm stay as they are."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        kept = _checkpointed(self.network) if self.config.gradient_checkpointing else []
        for module in kept:
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        try:
            yield
        finally:
            for module in kept:
                module.gradient_checkpointing = False
            self.network.eval()

    def remove(self) -> None:
        """Takes the layers out again; the network is what it was before."""
        self._lora.unload()
        self.network.eval().requires_grad_(False)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise missing_extra("Fine-tuning", "peft", "finetune") from error
    return peft


def _checkpointed(network: nn.Module) -> list[Any]:
    """The modules whose inner states can be computed twice instead of kept."""
    modules = [module for module in network.modules() if hasattr(module, "gradient_checkpointing")]
    if not modules:
        raise ConfigurationError(
            f"{type(network).__name__} has no gradient checkpointing: omit "
            "`gradient_checkpointing`, and lower `micro_batch` if memory is short."
        )
    return modules


def _target_names(network: nn.Module, wanted: tuple[str, ...]) -> list[str]:
    """Names of the linear layers to adapt."""
    # Subclasses of nn.Linear are called in other ways, such as the one inside MultiheadAttention
    linear = [name for name, layer in network.named_modules() if type(layer) is nn.Linear]
    chosen = [name for name in linear if not wanted or name.rpartition(".")[2] in wanted]
    if not linear:
        raise ConfigurationError(
            f"{type(network).__name__} has no linear layer, and LoRA adapts only those: choose "
            "another model, such as a ViT, DINOv2 or SigLIP for photos, or a BERT for texts."
        )
    if not chosen:
        endings = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigurationError(
            f"No linear layer of {type(network).__name__} is named {' or '.join(wanted)}: "
            f"`targets` takes {', '.join(endings)}."
        )
    return chosen
