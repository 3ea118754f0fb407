"""What the families with a latent of their own have in common: two transforms, an entropy model, a range of q indices."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from unquant.entropy.base import EntropyModel
from unquant.entropy.quantise import EntropyOutput, quantise
from unquant.entropy.rdoq import Rdoq
from unquant.errors import OptionError
from unquant.networks.common import Config, Model
from unquant.networks.config import EntropyConfig
from unquant.nn.compressor import CompressorEncoder, ContextDecoder
from unquant.nn.transforms import Analysis, Synthesis
from unquant.shapes import Latent, QMap

__all__ = ["LatentConfig", "LatentModel", "check_latent"]


class LatentConfig(Config, Protocol):
    """The configuration of a family with a latent: what fixes the meaning of that, beside the networks' sizes."""

    @property
    def latent(self) -> int:
        """Channels of y."""
        ...

    @property
    def tile(self) -> int:
        """Side of the tiles that are coded on their own, in latent positions."""
        ...

    @property
    def q_index_min(self) -> int:
        """The finest q index, of most bits."""
        ...

    @property
    def q_index_max(self) -> int:
        """The coarsest q index."""
        ...

    @property
    def entropy(self) -> EntropyConfig:
        """Sizes of the entropy model."""
        ...


def check_latent(config: LatentConfig) -> None:
    """Raises OptionError where the q indices are no range, or where the channels are too few for the entropy model."""
    if config.q_index_min > config.q_index_max:
        raise OptionError(f"q_index_max: at least q_index_min ({config.q_index_min}), not {config.q_index_max}")
    config.entropy.check(config.latent)


C = TypeVar("C", bound=LatentConfig)
A = TypeVar("A", bound=Analysis | CompressorEncoder)
S = TypeVar("S", bound=Synthesis | ContextDecoder)


class LatentModel(Model[C], Generic[C, A, S]):
    """A network with a latent: g_a makes it, the entropy model codes it, g_s draws from it."""

    g_a: A
    g_s: S
    entropy: EntropyModel

    def start_from(self, basis: Float[Tensor, "c d"], std: Float[Tensor, " c"]) -> None:
        """Start as a transform codec from KLT directions (c, 768) and the latents' standard deviations (c,)."""
        self.g_a.start_from(basis)
        self.g_s.start_from(basis)
        self.entropy.start_from(std)

    def quantise(
        self,
        y: Latent,
        log2_q: QMap,
        *,
        noise: bool,
        hidden: Int[Tensor, " n"] | None = None,
        rdoq: Rdoq | None = None,
    ) -> EntropyOutput:
        """Quantise y with step q and count bits: `unquant.entropy.quantise` with this model's entropy networks."""
        return quantise(self.entropy, y, log2_q, noise=noise, hidden=hidden, rdoq=rdoq)
