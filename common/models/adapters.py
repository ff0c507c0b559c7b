"""What is trained of the upper encoder layers, and how it is merged when the model is exported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from common.config import LoraConfig, ModelConfig
from common.errors import UserError
from common.models.families import FAMILIES, Family
from common.models.heads import TokenHead
from common.models.ia3 import ScaledLinear, scale_layers
from common.models.mean_pooled import MeanHead
from common.models.network import Network
from common.models.whitening import FeatureWhitening

KEY_BIASES = tuple({family.key_bias for family in FAMILIES.values()})


def choose_trainable(config: ModelConfig, family: Family, layers: nn.ModuleList) -> None:
    """Freeze, or put adapters into, the upper encoder layers, in place.

    Raises:
        UserError: `model.lora.targets` names no linear layer of this model.
    """
    if config.trainable in ("last_k", "full"):
        return
    for name, parameter in layers.named_parameters():
        # BitFit (Ben Zaken et al. 2022): the biases alone.
        parameter.requires_grad_(config.trainable == "bitfit" and name.endswith("bias"))
    if config.trainable == "ia3":
        scale_layers(layers, family)
    if config.trainable == "lora":
        _add_lora(config.lora, layers)


def _add_lora(config: LoraConfig, layers: nn.ModuleList) -> None:
    try:
        inject_adapter_in_model(
            PeftLoraConfig(
                r=config.r,
                lora_alpha=config.alpha,
                target_modules=list(config.targets),
                lora_dropout=0.0,
            ),
            layers,
        )
    except ValueError as error:
        kinds = sorted(
            {n.split(".")[-1] for n, m in layers.named_modules() if isinstance(m, nn.Linear)}
        )
        raise UserError(
            f"model.lora.targets: none of {list(config.targets)} is a linear layer of this "
            f"model; it has {', '.join(kinds)}"
        ) from error
    if config.factors == "b":
        for name, parameter in layers.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad_(False)


def merge_adapters(network: Network) -> None:
    """Merge LoRA, IA³ and whitening into the weights, in place; `stock` is a plain model then."""
    head = network.trained.head
    if isinstance(head, MeanHead | TokenHead) and isinstance(head.conditioning, FeatureWhitening):
        head.classifier = head.conditioning.fold(head.classifier)
        head.conditioning = None
        if isinstance(head, TokenHead):
            network.stock.classifier = head.classifier
    for parent in list(network.stock.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, ScaledLinear):
                setattr(parent, name, child.folded())


def must_have_gradient(before: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    """Those of `names` whose gradient is not zero by definition, sorted.

    Zero by definition are the gradients of LoRA's A while its B is exactly zero, and of the bias of
    attention keys, to which the softmax is invariant.

    Args:
        before: The trainable parameters at which the gradient is taken, by name.
        names: Names of some of them.
    """

    def excused(name: str) -> bool:
        b = name.replace("lora_A", "lora_B")
        idle = b != name and b in before and not bool(before[b].any())
        return idle or name.endswith(KEY_BIASES)

    return sorted(name for name in names if not excused(name))
