"""What every stage is told: how to load, read, measure and plan."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scarprune.errors import ArgumentError
from scarprune.text.blocks import DEFAULT_COUNT, Blocks, read_blocks
from scarprune.text.protocol import Protocol

if TYPE_CHECKING:
    from scarprune.profile.compiling import Compiled
    from scarprune.profile.run import Labels
    from scarprune.runtime.ranks import Ranks

Batch = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Loading:
    """How a model is loaded; the fields are those of ``load_model``."""

    dtype: str = "auto"
    device: str = "auto"
    revision: str | None = None
    trust_remote_code: bool = False

    def load(
        self,
        source: str,
        spreading: "Spreading | None" = None,
        ranks: "Ranks | None" = None,
        *,
        streamed: bool = False,
    ) -> tuple[Any, Any | None]:
        """The model and its tokenizer, where it has one."""
        from scarprune.models.load import load_model  # a folder is cut without torch in the process

        of_ranks: dict[str, Any] = {} if ranks is None else {"ranks": ranks}
        return load_model(
            source,
            self.dtype,
            self.device,
            revision=self.revision,
            trust_remote_code=self.trust_remote_code,
            device_map=None if spreading is None else spreading.device_map,
            streamed=streamed,
            **of_ranks,
        )


@dataclass(frozen=True, slots=True)
class Spreading:
    """How a model that no GPU holds is spread: in ``tp`` processes, or over the devices of one."""

    tp: int = 1
    device_map: str | None = None

    def ranks(self) -> "Ranks":
        """The processes that take part.

        Raises:
            ArgumentError: they cannot be divided so, or a device map is asked of several.
        """
        from scarprune.runtime.ranks import find_ranks

        ranks = find_ranks(self.tp)
        if self.device_map is not None and ranks.count > 1:
            raise ArgumentError(
                f"A device map is for one process, not for {ranks.count}.", hint="Use --tp in its place."
            )
        return ranks


@dataclass(frozen=True, slots=True)
class Reading:
    """How text becomes blocks; the fields are those of ``read_blocks``."""

    length: int = 512
    seed: int = 0
    protocol: Protocol = "packed"
    bos: bool | None = None
    field: str = "text"

    def blocks(
        self,
        source: str,
        tokenizer: Any | None,
        count: int | None = DEFAULT_COUNT,
        skip: Blocks | None = None,
    ) -> Blocks:
        """The blocks of one text; ``count`` None takes all of them."""
        return read_blocks(
            source,
            tokenizer,
            count,
            self.length,
            self.seed,
            self.protocol,
            bos=self.bos,
            field=self.field,
            skip=skip,
        )


@dataclass(frozen=True, slots=True)
class Measuring:
    """How a model is profiled; ``blocks`` None is the default number, or all of a file of token ids.

    ``memory`` is what ``profile_model`` takes; a model is loaded within it.
    """

    blocks: int | None = None
    batch: Batch = "auto"
    compiled: "Compiled" = "auto"
    labels: "Labels" = "data"
    redundancy: bool = True
    extras: tuple[str, ...] = ()
    memory: int | Literal["auto"] = "auto"

    @property
    def bound(self) -> int | None:
        """Bytes of memory that may be in use, where that was said."""
        return None if self.memory == "auto" else self.memory


@dataclass(frozen=True, slots=True)
class Planning:
    """How the channels that stay are chosen; the fields are those of ``make_plan``."""

    score: str = "fisher_activation"
    protect: Literal["core"] | None = None
    multiple_of: int | Literal["auto"] = "auto"
    allocation: str = "uniform"
    cap: float = 0.7


@dataclass(frozen=True, slots=True)
class Compensating:
    """How what stays makes up for what goes: a compensation, how long it may train, and on what besides.

    ``own_text``: blocks in the dense model's own words that are added to the calibration text.
    """

    compensate: str = "none"
    compensate_steps: int | None = None
    compensate_seconds: float | None = None
    own_text: int | Literal["auto"] = "auto"


def judged(source: str) -> str:
    """``demo`` where a command judges: the shipped evaluation text."""
    return "demo:evaluation" if source == "demo" else source
