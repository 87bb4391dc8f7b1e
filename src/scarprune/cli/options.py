"""Options that several commands share, under one name and with one meaning everywhere."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]
Value = TypeVar("Value", bound="DataclassInstance")


def auto_or_number(value: str) -> int | str:
    """The parser of options that are ``auto`` or a whole number."""
    try:
        return value if value == "auto" else int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto nor a whole number.") from None


def auto_or_rate(value: str) -> float | str:
    """The parser of options that are ``auto`` or a number."""
    try:
        return value if value == "auto" else float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither auto nor a number.") from None


def auto_or_switch(value: str) -> bool | str:
    """The parser of options that are ``auto``, ``on`` or ``off``."""
    if value not in ("auto", "on", "off"):
        raise click.BadParameter(f"{value!r} is not auto, on or off.")
    return value if value == "auto" else value == "on"


def auto_or_size(value: str) -> int | str:
    """The parser of options that are ``auto`` or a size of memory."""
    from scarprune.errors import ArgumentError
    from scarprune.runtime.size import parse_size

    try:
        return value if value == "auto" else parse_size(value)
    except ArgumentError as error:
        raise click.BadParameter(str(error)) from None


PATH = click.Path(path_type=Path)


def _all(*decorators: Decorator) -> Decorator:
    """One decorator for several, in the order of --help."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def pick(kind: type[Value], options: dict[str, Any]) -> Value:
    """Take the fields of the dataclass ``kind`` out of ``options``."""
    return kind(**{field.name: options.pop(field.name) for field in fields(kind)})


model = click.argument("model")

device = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto.")

loading: Decorator = _all(
    click.option(
        "--dtype",
        default="auto",
        show_default=True,
        metavar="float32|bfloat16|float16|auto",
        help="Of computing; auto is the checkpoint's on a GPU, float32 on a CPU where it fits.",
    ),
    device,
    click.option("--revision", help="Branch, tag or commit of a hub model."),
    click.option("--trust-remote-code", is_flag=True, help="Let a checkpoint run its own Python code."),
)

spreading: Decorator = _all(
    click.option(
        "--tp",
        default=1,
        show_default=True,
        metavar="N",
        help="Processes that hold one copy of the model in parts, under torchrun (tensor parallel).",
    ),
    click.option(
        "--device-map",
        metavar="auto",
        help="Spread the layers over the GPUs of one process [default: where the model fits no single one].",
    ),
)

length = click.option("--length", default=512, show_default=True, help="Tokens of a block.")

cutting: Decorator = _all(
    click.option(
        "--protocol",
        default="packed",
        show_default=True,
        metavar="packed|contiguous|documents",
        help="How documents become blocks.",
    ),
    click.option(
        "--bos/--no-bos", default=None, help="BOS in front of each block [default: if there is one]."
    ),
    click.option("--field", default="text", show_default=True, help="Field of a row that holds the text."),
)

reading: Decorator = _all(
    length,
    click.option("--seed", default=0, show_default=True, help="Of drawing the blocks, and of sampling."),
    cutting,
)

batch = click.option(
    "--batch",
    type=auto_or_number,
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Blocks at once; auto: what fits.",
)

compiled = click.option(
    "--compile",
    "compiled",
    type=auto_or_switch,
    metavar="auto|on|off",
    default="auto",
    show_default=True,
    help="Run layers under torch.compile; auto: on a GPU where the text is long enough to pay for it.",
)

measuring: Decorator = _all(
    click.option("--blocks", type=int, help="Blocks of text to measure on [default: 128]."),
    batch,
    compiled,
)

memory = click.option(
    "--memory",
    type=auto_or_size,
    metavar="auto|SIZE",
    default="auto",
    show_default=True,
    help="Most to use on the device, as 20GiB; layers are recomputed, then streamed, as needed.",
)

extras = click.option(
    "--extra",
    "extras",
    multiple=True,
    metavar="entropy|gradient|hessian",
    help="What single scores need besides, a pass of its own each (repeatable; `scores` says which).",
)

labels: Decorator = _all(
    click.option(
        "--labels",
        default="data",
        show_default=True,
        metavar="data|model|both",
        help="Whose targets: the text's, or drawn from the model itself.",
    ),
    click.option(
        "--redundancy/--no-redundancy",
        default=True,
        show_default=True,
        help="Also measure redundancy with the core (a second pass; the SCAR scores need it).",
    ),
)

allocating: Decorator = _all(
    click.option(
        "--multiple-of",
        type=auto_or_number,
        metavar="auto|N",
        default="auto",
        show_default=True,
        help="Widths are rounded up to it; auto: a power of two within 1% of the width.",
    ),
    click.option(
        "--allocation",
        default="uniform",
        show_default=True,
        metavar="uniform|global|global_raw|global_standard|linear:S|middle",
        help="One fraction for all sites, one pool over all of them, or a fraction by depth.",
    ),
    click.option(
        "--cap", default=0.7, show_default=True, help="Most that a pool or a schedule removes of a site."
    ),
)


def planning(score: str) -> Decorator:
    """How the channels that stay are chosen, by ``score`` unless told otherwise."""
    return _all(
        click.option(
            "--score", default=score, show_default=True, help="What ranks the channels; see `scores`."
        ),
        click.option("--protect", metavar="core", help="Keep the core whatever the score says."),
        allocating,
    )


sparsity = click.option(
    "--sparsity", type=float, required=True, help="Fraction of channels to remove, 0 to 1."
)

own_text = click.option(
    "--own-text",
    type=auto_or_number,
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Blocks more to learn from, by the dense model; auto: on a GPU 2000 for refit, 8000 to heal.",
)

bounding: Decorator = _all(
    click.option(
        "--compensate-steps", type=int, help="Steps that refit trains each layer for [default: 600]."
    ),
    click.option(
        "--compensate-seconds", type=float, help="Time for all of refit's training, in place of steps."
    ),
    own_text,
)

compensating: Decorator = _all(
    click.option(
        "--compensate",
        default="none",
        show_default=True,
        metavar="none|bias|ls|refit",
        help="How channels that stay make up for those that go: a bias, least squares, or trained layers.",
    ),
    bounding,
)

saving: Decorator = _all(
    click.option(
        "--save-dtype",
        metavar="float32|bfloat16|float16",
        help="Of the saved tensors [default: as in the source; bfloat16 for a .gguf].",
    ),
    click.option("--pad", is_flag=True, help="Store sites of different widths with channels of zeros."),
)


def _set_quiet(ctx: click.Context, parameter: click.Parameter, on: bool) -> None:
    from scarprune.runtime.progress import set_quiet  # imports rich, which --help can do without

    set_quiet(on)


quiet = click.option(
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=_set_quiet,
    help="No progress and no remarks on stderr.",
)

overwrite = click.option("--overwrite", is_flag=True, help="Replace outputs that are already there.")

resume = click.option(
    "--resume", is_flag=True, help="Go on from what an interrupted run left in OUT.partial."
)

json = click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the machine-readable result; - for stdout, and nothing else.",
)
